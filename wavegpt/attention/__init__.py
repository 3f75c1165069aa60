"""Causal attention: kinds, the formulas and kernels below them, and caches for decoding."""
