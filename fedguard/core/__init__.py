"""Shared foundations: errors, ids, seeds, states, parameters, threads."""
