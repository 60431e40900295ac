"""Suites: read, checked, crossed into cells."""
