"""Observers of a guard: event streams and metrics."""
