"""Weights of a transformer, tensor by tensor: effective ranks, entries, heads, neurons, each beside its null."""

PARTS = ("matrices", "heads", "between", "neurons", "norms")
