"""Suites: read, checked, and expanded into cells."""
