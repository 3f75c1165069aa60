"""Weights of a transformer, tensor by tensor: effective ranks, entries, heads, neurons, each beside its null."""

PARTS = ("matrices", "heads", "between", "neurons", "norms", "positions")
RANKS = {  # way of measuring effective ranks → what it is
    "gram": "Gram matrices, fp64",
    "exact": "singular value decompositions, fp64",
    "fast": "Gram matrices, fp32, and Lanczos steps",
}
