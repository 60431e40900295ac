"""Arithmetic over the (n, d) matrix of updates; bitwise identical for any number of threads."""
