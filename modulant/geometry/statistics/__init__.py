"""Correlations from sums, permutation tests, the bootstrap."""
