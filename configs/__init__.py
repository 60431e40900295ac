"""Shipped suites, read with ``importlib.resources.files("fedguard.configs")``."""
