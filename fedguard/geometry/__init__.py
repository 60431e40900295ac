"""Arithmetic over the (n, d) matrix of updates; the same bits for any number of threads."""
