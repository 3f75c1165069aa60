"""Pairs → counts: for each cell of `Layout` and path length, a histogram of cosines and their fixed-point sums.

Sums are of integers, cosines in steps of 2⁻²⁴ and their squares in steps of 2⁻³⁰, so they do not depend on the order of
addition: any division of the pairs among ranks or threads gives the same bits. On a CPU `compiled_counts` gives the
same counts in one pass; these array operations serve GPUs and samples. `fine_counts` serves cosines that crowd.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from modulant.geometry.products import products
from modulant.metrics.functional.pairs import Layout

COSINE_STEPS = 2.0**24
SQUARE_STEPS = 2.0**30

# Of few pairs each weighs more, and so does what shares a bin; of many the histograms should stay in a core's cache.
_BINS, _BINS_OF_FEW, _FEW = 2**13, 2**15, 2**21

Part = tuple[int, Tensor, Tensor]  # cell, classes and cosines of some pairs, both one-dimensional


class Bins(NamedTuple):
    """Histogram bins: a cosine c falls into bin ⌊(1 + x / (width + |x|)) n / 2⌋, x = c − centre, in fp32."""

    n: int
    centre: float
    width: float


class Counts(NamedTuple):
    """Int64 counts of pairs; a pair's class is its path length, and the last class is dropped from all figures."""

    histograms: Tensor  # (cells, classes, bins)
    sums: Tensor  # (cells, classes): Σ cos in steps of 2⁻²⁴
    squares: Tensor  # (cells, classes): Σ cos² in steps of 2⁻³⁰


def number_of_bins(n_points: int) -> int:
    """Bins of a histogram of the cosines among so many points.

    >>> number_of_bins(500), number_of_bins(8000)
    (32768, 8192)
    """
    return _BINS_OF_FEW if n_points**2 < 2 * _FEW else _BINS


def place_bins(unit: Float[Tensor, "points dim"], n: int) -> Bins:
    """`n` bins, placed by the approximate mean and sd of the cosines of unit vectors: dense where cosines are.

    Of about a thousand points, by |Σ u|² and |Uᵀ U|², less their cosines with themselves. Rounded coarsely, so that
    ranks with other rounding errors agree on the bins.

    >>> place_bins(torch.eye(4), 8)
    Bins(n=8, centre=0.0, width=0.001)
    """
    u = unit[:: max(1, len(unit) // 1024)].double()
    count = len(u)
    pairs = max(count * (count - 1), 1)
    mean = (u.sum(0).square().sum().item() - count) / pairs
    spread = max(((u.mT @ u).square().sum().item() - count) / pairs - mean**2, 0.0) ** 0.5
    return Bins(n, round(mean, 3), float(f"{max(spread, 1e-3):.1g}"))


def bin_keys(cosines: Float[Tensor, "pairs"], bins: Bins) -> Int[Tensor, "pairs"]:
    """The bin of each fp32 cosine."""
    x = cosines.sub(bins.centre)
    x.div_(x.abs().add_(bins.width))  # into (−1, 1)
    return x.add_(1).mul_(bins.n / 2).to(torch.int32)


def block_parts(
    unit: Float[Tensor, "points dim"],
    classes: UInt8[Tensor, "points points"],
    dropped: int,
    layout: Layout,
    first: int,
    last: int,
) -> Iterator[Part]:
    """Pairs of rows [first, last) of one group with all later rows.

    Args:
        unit: unit vectors, in the order of the layout.
        classes: of all pairs.
        dropped: the class of what is no pair i < j.
        layout: whose `blocks` first and last come from.
    """
    cosines = products(unit[first:last], unit[first:])
    of_pair = classes[first:last, first:].to(torch.int32)
    of_pair[torch.ones_like(of_pair, dtype=torch.bool).tril_()] = dropped  # i >= j
    for start, stop, cell in layout.segments(first):
        columns = slice(start - first, stop - first)
        yield cell, of_pair[:, columns].flatten(), cosines[:, columns].flatten()


def sample_parts(
    unit: Float[Tensor, "points dim"],
    classes: UInt8[Tensor, "points points"],
    layout: Layout,
    ends: Int[Tensor, "2 pairs"],
) -> Iterator[Part]:
    """The given pairs, by cell."""
    i, j = ends
    cosines = (unit[i] * unit[j]).sum(-1)
    of_pair = classes[i, j].to(torch.int32)
    group = torch.bucketize(ends.contiguous(), ends.new_tensor(layout.ends), right=True)
    cells = torch.from_numpy(layout.cells).to(ends.device)[group[0], group[1]]
    for cell in range(layout.n_cells):
        yield cell, of_pair[cells == cell], cosines[cells == cell]


def count_parts(counts: Counts, parts: Iterable[Part], bins: Bins) -> None:
    """Adds pairs to `counts` by array operations."""
    n = counts.sums.shape[1]
    for cell, classes, cosines in parts:
        keys = bin_keys(cosines, bins).add_(classes, alpha=bins.n)
        counts.histograms[cell] += torch.bincount(keys, minlength=n * bins.n).view(n, -1)
        fixed = cosines.mul(COSINE_STEPS).round_().double()
        counts.sums[cell] += torch.bincount(classes, weights=fixed, minlength=n).long()
        fixed.square_().mul_(SQUARE_STEPS / COSINE_STEPS**2).add_(0.5).floor_()
        counts.squares[cell] += torch.bincount(classes, weights=fixed, minlength=n).long()
