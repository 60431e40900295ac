"""Evaluate defenses against attacks: suites, the runner, the results store, tables and exports."""
