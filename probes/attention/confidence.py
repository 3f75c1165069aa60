"""Does attention go with how sure a model is of a token? Over texts; the null permutes texts of alike length."""

from typing import Any

import torch
from torch import Tensor

from modulant.geometry import association, resampled_pearson
from probes.attention.figures import Found, by_text
from probes.attention.lens import WITHOUT
from probes.attention.measure import MODEL, Layers, Pass
from probes.findings import Null

LEAST = 8  # texts
_ALIKE = 5  # texts in a group of alike lengths, at least, where few have the same
_PERMUTATIONS = 4999
PERMUTED = "confidence permuted among texts of the same length"
# What is compared, as it is over all queries and heads, and at the query that alone makes the token.
FIGURES = {
    "entropy": "source_entropy",
    "coherence": "source_coherence",
    "head_sync": "source_head_sync",
    "sink": "sink",
    "entropy_last": "entropy_last",
    "entropy_without_sink_last": "entropy_without_sink_last",
    "sink_last": "sink_last",
    "distance_last": "distance_last",
    "head_divergence_last": "head_divergence_last",
}


def add_confidence(found: Found, at: str, read: Pass, counts: Tensor | None, seed: int) -> dict[str, Any] | None:
    """``<at>/coherence/r`` … of the last layer, and the largest of all layers; returns curves by layer.

    Confidence is −H of the token that `Lens` asks for. r is Pearson's with a bootstrap over texts; partial r is given
    ln T; p is that partial r's by itself, p_family that of the largest of all layers and figures. Both permute
    confidence among texts of the same length, so whatever length explains is in the null.
    """
    names = ("r", "partial_r", "p", "p_family")
    seen, layers = read.seen, read.predicts
    texts = len(read.lengths)
    if seen is None or counts is None or texts < LEAST:
        why = WITHOUT if seen is None else f"fewer than {LEAST} texts"
        found.leave_out(at, [f"{figure}/{name}" for figure in FIGURES for name in names], why)
        return None
    sure = -seen.entropy[:, -1]
    values = {name: _filled(layers, key) for name, key in FIGURES.items()}  # (N, L)
    n_layers = len(layers.layers)
    stacked = torch.cat([value.mT for value in values.values()])  # figures × layers, N
    test = association(stacked, sure, read.lengths.double().log(), groups_of(read.lengths), _PERMUTATIONS, seed)
    low, high = resampled_pearson(stacked, sure, counts).nanquantile(torch.tensor([0.025, 0.975]).double(), dim=0)
    tests = int(test.partial_r.isfinite().sum())
    population = f"{texts} texts, layer {layers.layers[-1]}"
    null = Null(PERMUTED, [0.0])
    for i, name in enumerate(FIGURES):
        k = (i + 1) * n_layers - 1  # the last layer
        found.add(f"{at}/{name}/r", float(test.r[k]), population, null=null)
        if found.figures[f"{at}/{name}/r"] is not None:
            found.intervals[f"{at}/{name}/r"] = (float(low[k]), float(high[k]))
        found.add(f"{at}/{name}/partial_r", float(test.partial_r[k]), f"{population}, given ln T", null=null)
        found.add(f"{at}/{name}/p", float(test.p[k]), f"{_PERMUTATIONS:,} permutations")
        found.add(f"{at}/{name}/p_family", float(test.p_family[k]), f"{_PERMUTATIONS:,} permutations, {tests} tests")
    best = int(test.partial_r.nan_to_num(0).abs().argmax())
    everything = f"{texts} texts, {tests} tests"
    found.add(f"{at}/largest/partial_r", float(test.partial_r[best]), everything, null=null)
    found.add(f"{at}/largest/p_family", float(test.p_family[best]), f"{_PERMUTATIONS:,} permutations, {tests} tests")
    found.add(f"{at}/threshold", test.threshold, f"95th percentile of the largest |partial r| of {tests}")
    found.add(f"{at}/entropy/r_length", _pearson(values["entropy"][:, -1], read.lengths), f"{texts} texts, ln T")
    partial = test.partial_r.view(len(FIGURES), n_layers)
    return {
        "layers": layers.layers,
        "partial_r": dict(zip(FIGURES, partial.tolist(), strict=True)),
        "threshold": test.threshold,
        "largest": {"figure": list(FIGURES)[best // n_layers], "layer": layers.layers[best % n_layers]},
        "tests": tests,
        "points": {"confidence": sure.tolist(), "coherence": values["coherence"][:, -1].tolist()},
    }


def _filled(layers: Layers, key: str) -> Tensor:
    """(N, L); a text where the figure is undefined has the mean of the others, one that never is stays NaN."""
    values = by_text(layers.of[MODEL], key)
    return torch.where(values.isfinite(), values, values.nanmean(0))


def groups_of(lengths: Tensor) -> Tensor:
    """The number of each text's group: texts of the same length.

    Where fewer than half have another one of their length, lengths that follow one another make a group of at least
    five.

    >>> groups_of(torch.tensor([9, 4, 4, 9, 4])).tolist()
    [1, 0, 0, 1, 0]
    >>> groups_of(torch.tensor([10, 20, 30, 40, 50, 60, 70, 80, 90, 99])).tolist()
    [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    """
    ascending, same, counts = lengths.unique(return_inverse=True, return_counts=True)
    if 2 * int(counts[counts > 1].sum()) >= len(lengths):
        return same
    number, size, merged = 0, 0, []
    for i in range(len(ascending)):
        if size >= _ALIKE and int(counts[i:].sum()) >= _ALIKE:
            number, size = number + 1, 0
        merged.append(number)
        size += int(counts[i])
    return torch.tensor(merged)[same]


def _pearson(values: Tensor, lengths: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([values, lengths.double().log()]))[0, 1])
