"""The counts of `counts`, for cosines that crowd: of nearly constant representations, or of tight clusters.

Usual counts come from fp32 cosines, which are good to about 1e-7, and from bins that are spaced for one broad hump.
Where a sample shows that this would tie many pairs, cosines are computed in fp64 and counted in steps of 2⁻³⁰ about a
centre, their squares exactly, and histogram bins lie at the sample's quantiles. Slower; again sums of integers alone.
"""

from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modulant.metrics.functional.counts import Bins, Counts, Part, bin_keys
from modulant.metrics.functional.pairs import Layout

STEPS = 2.0**30
# Variances of cosines up to which they count as constant: usual counts cannot resolve less than the first; of the
# second, sd 1e-8, a change of the last bit of the points is the cause.
FLAT, FLAT_FINE = 1e-9, 1e-16
_ROWS = 256  # of each part and stratum in the sample, up to twice that
_TIED = 1e-6  # Σ share³ of the bins


class FineBins(NamedTuple):
    """Where fine histograms have their bins."""

    centre: float
    edges: Int[Tensor, "edges"]  # ascending, in steps of 2⁻³⁰ from the centre


def unit_vectors(points: Float[Tensor, "points dim"], fine: bool = False) -> Float[Tensor, "points dim"]:
    """Rows of length 1 in fp32, or in fp64 for fine counts; a row of zeros stays."""
    return torch.nn.functional.normalize(points.double() if fine else points.float(), dim=-1)


def crowded(unit: Float[Tensor, "points dim"], layout: Layout, bins: Bins) -> bool:
    """Whether usual bins would tie many of the pairs of one population or stratum.

    By a sample of each. With shares p of the bins, ties change Spearman's ρ by √(Σ p³) at most: here more than 1e-3.

    >>> from modulant.metrics.functional.counts import place_bins
    >>> layouts = [Layout(np.arange(n) >= 100) for n in (120, 2)]
    >>> points = torch.cat([torch.eye(40)] * 3) + 1e-4 * torch.arange(120).outer(torch.arange(40)).sin()
    >>> units = unit_vectors(points), torch.eye(2)
    >>> [crowded(unit, layout, place_bins(unit, 2**15)) for unit, layout in zip(units, layouts)]
    [True, False]
    """
    for cosines in _sample(unit, layout):
        counts = torch.bincount(bin_keys(cosines, bins)).double()
        pairs = max(len(cosines), 1)
        # What chance alone puts together is allowed for, ten times.
        if float((counts**3 - counts).sum()) / pairs**3 > _TIED + 30 / (pairs * bins.n):
            return True
    return False


def place_fine_bins(unit: Float[Tensor, "points dim"], layout: Layout, n: int) -> FineBins:
    """Up to `n` bins, equally many for each population and stratum, at the quantiles of a sample of fp64 cosines."""
    sample = _sample(unit, layout)
    # Rounded, so that ranks with other rounding errors agree.
    centre = round(float(torch.cat(sample).mean()) if any(map(len, sample)) else 0.0, 6)
    edges = []
    for cosines in sample:
        fixed = in_steps(cosines, centre).sort().values
        inner = min(n // len(sample) - 1, len(fixed))
        # Between two neighbours, so that a rounding error of either moves neither into another bin.
        place = (torch.arange(1, inner + 1, device=fixed.device) * len(fixed)) // (inner + 1)
        edges.append((fixed[place] + fixed[(place - 1).clamp_min(0)] + 1) // 2)
    return FineBins(centre, torch.cat(edges).unique())


def in_steps(cosines: Tensor, centre: float) -> Int[Tensor, "*cosines"]:
    """fp64 cosines minus the centre in steps of 2⁻³⁰."""
    return cosines.sub(centre).mul_(STEPS).round_().long()


def count_fine(counts: Counts, remainders: Int[Tensor, "cells classes"], parts: Iterable[Part], bins: FineBins) -> None:
    """Adds pairs, whose cosines are in fp64.

    Args:
        counts: sums in steps of 2⁻³⁰ about the centre; squares in steps of 2⁻³⁰, rounded down.
        remainders: of the squares, in steps of 2⁻⁶⁰.
        parts: as `block_parts` and `sample_parts` give them.
        bins: of the histograms.
    """
    n_classes, n = counts.histograms.shape[1:]
    for cell, classes, cosines in parts:
        fixed, classes = in_steps(cosines, bins.centre), classes.long()
        keys = torch.bucketize(fixed, bins.edges, right=True).add_(classes, alpha=n)
        counts.histograms[cell] += torch.bincount(keys, minlength=n_classes * n).view(n_classes, n)
        square = fixed.square()  # below 2⁶²
        counts.sums[cell].index_add_(0, classes, fixed)
        counts.squares[cell].index_add_(0, classes, square >> 30)
        remainders[cell].index_add_(0, classes, square & (2**30 - 1))


def _sample(unit: Tensor, layout: Layout) -> list[Tensor]:
    """Cosines of some pairs of each population, and of each stratum."""
    parts, strata = ([_some(unit, rows) for rows in kind] for kind in (layout.parts, layout.strata))
    mixed = [(one @ other.mT).flatten() for one, other in combinations(parts, 2)]
    within = [_upper(some) for some in (*parts, *strata)]
    return [within[0], torch.cat(mixed), *within[1:]]


def _some(unit: Tensor, rows: npt.NDArray[np.int64]) -> Tensor:
    return unit[torch.from_numpy(rows[:: max(1, len(rows) // _ROWS)]).to(unit.device)]


def _upper(unit: Tensor) -> Tensor:
    cosines = unit @ unit.mT
    return cosines[torch.ones_like(cosines, dtype=torch.bool).triu_(1)]
