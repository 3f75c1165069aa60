"""The counts of `counts`, for cosines that crowd: of nearly constant representations, or of tight clusters.

Usual counts come from fp32 cosines, which are good to about 1e-7, and from bins that are spaced for one broad hump.
Where a sample shows that this would tie many pairs, cosines are computed in fp64 and counted in steps of 2⁻³⁰ about a
centre, their squares exactly, and histogram bins lie at the sample's quantiles. Slower; again sums of integers alone.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modulant.metrics.functional.counts import Bins, Counts, Part, bin_keys

STEPS = 2.0**30
# Variances of cosines up to which they count as constant: usual counts cannot resolve less than the first; of the
# second, sd 1e-8, a change of the last bit of the points is the cause.
FLAT, FLAT_FINE = 1e-9, 1e-16
_ROWS = 256  # of each kind in the sample, up to twice that
_TIED = 1e-6  # Σ share³ of the bins


class FineBins(NamedTuple):
    """Where fine histograms have their bins."""

    centre: float
    edges: Int[Tensor, "edges"]  # ascending, in steps of 2⁻³⁰ from the centre


def unit_vectors(points: Float[Tensor, "points dim"], fine: bool = False) -> Float[Tensor, "points dim"]:
    """Rows of length 1 in fp32, or in fp64 for fine counts; a row of zeros stays."""
    return torch.nn.functional.normalize(points.double() if fine else points.float(), dim=-1)


def crowded(unit: Float[Tensor, "points dim"], n_train: int, bins: Bins) -> bool:
    """Whether usual bins would tie many of the pairs of one population.

    By a sample of each. With shares p of the bins, ties change Spearman's ρ by √(Σ p³) at most: here more than 1e-3.

    >>> from modulant.metrics.functional.counts import place_bins
    >>> points = torch.cat([torch.eye(40)] * 3) + 1e-4 * torch.arange(120).outer(torch.arange(40)).sin()
    >>> unit = unit_vectors(points)
    >>> crowded(unit, 100, place_bins(unit, 2**15)), crowded(torch.eye(2), 2, place_bins(torch.eye(2), 2**15))
    (True, False)
    """
    for cosines in _sample(unit, n_train):
        counts = torch.bincount(bin_keys(cosines, bins)).double()
        pairs = max(len(cosines), 1)
        # What chance alone puts together is allowed for, ten times.
        if float((counts**3 - counts).sum()) / pairs**3 > _TIED + 30 / (pairs * bins.n):
            return True
    return False


def place_fine_bins(unit: Float[Tensor, "points dim"], n_train: int, n: int) -> FineBins:
    """Up to `n` bins, equally many in each population, at the quantiles of a sample of fp64 cosines."""
    sample = _sample(unit, n_train)
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


def count_fine(counts: Counts, remainders: Int[Tensor, "3 classes"], parts: Iterable[Part], bins: FineBins) -> None:
    """Adds pairs, whose cosines are in fp64.

    Args:
        counts: sums in steps of 2⁻³⁰ about the centre; squares in steps of 2⁻³⁰, rounded down.
        remainders: of the squares, in steps of 2⁻⁶⁰.
        parts: as `block_parts` and `sample_parts` give them.
        bins: of the histograms.
    """
    n_classes, n = counts.histograms.shape[1:]
    for population, classes, cosines in parts:
        fixed, classes = in_steps(cosines, bins.centre), classes.long()
        keys = torch.bucketize(fixed, bins.edges, right=True).add_(classes, alpha=n)
        counts.histograms[population] += torch.bincount(keys, minlength=n_classes * n).view(n_classes, n)
        square = fixed.square()  # below 2⁶²
        counts.sums[population].index_add_(0, classes, fixed)
        counts.squares[population].index_add_(0, classes, square >> 30)
        remainders[population].index_add_(0, classes, square & (2**30 - 1))


def _sample(unit: Tensor, n_train: int) -> list[Tensor]:
    """Cosines of some pairs of each population: both ends, one or none in the training set."""
    train, held = (some[:: max(1, len(some) // _ROWS)] for some in (unit[:n_train], unit[n_train:]))
    return [_upper(train), (train @ held.mT).flatten(), _upper(held)]


def _upper(unit: Tensor) -> Tensor:
    cosines = unit @ unit.mT
    return cosines[torch.ones_like(cosines, dtype=torch.bool).triu_(1)]
