"""The front door from Python: evaluate suites on one's own objects, and work with the results."""
