"""The commands that work on suites, results and methods; an operator's are in ``fedguard.console``."""
