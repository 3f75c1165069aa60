"""Exact moments of cosines and squared distances over all pairs of a cloud, from sums over points.

No pair is ever formed: n points cost n D² operations. Sums over points are in fp64. Pairs are i ≠ j.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from modulant.geometry.clouds.dimensions import covariance, gram_sum

_ROWS = 1024  # of a matrix of cosines at once


class Moments(NamedTuple):
    """Mean and standard deviation over all pairs."""

    mean: float
    sd: float


def cosine_moments(points: Float[Tensor, "points dim"]) -> Moments:
    """Moments of the cosines of all pairs; a row of zeros has the cosine 0 with every other. Unitless.

    With u the unit rows: mean (‖Σu‖² − n) / (n (n−1)), mean square (‖Σ u uᵀ‖² − n) / (n (n−1)). Σ u uᵀ is summed in
    fp64 over blocks of 1,024 points, whose products have the points' precision, at least fp32.

    >>> cosine_moments(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))
    Moments(mean=0.333..., sd=0.471...)
    """
    exact = torch.float64 if points.dtype == torch.float64 else torch.float32
    unit = F.normalize(points.to(exact), dim=-1)
    n, own = len(unit), unit.square().sum(dtype=torch.float64)
    # The fourth power of a unit row's length is its square.
    pairs = n * (n - 1)
    mean = (unit.sum(0, dtype=torch.float64).square().sum() - own) / pairs
    square = (gram_sum(unit.split(_ROWS)).square().sum() - own) / pairs
    return _moments(mean, square)


def squared_distance_moments(
    points: Float[Tensor, "points dim"], matrix: Float[Tensor, "dim dim"] | None = None
) -> Moments:
    """Moments of ‖x_i − x_j‖² over all pairs. Unit: length², of both.

    With x centred, a = ‖x‖² and S = Σ x xᵀ: Σ d² = 2 n Σ a, Σ d⁴ = 2 n Σ a² + 2 (Σ a)² + 4 ‖S‖². Of a Gaussian cloud
    sd / mean is √(2 / participation ratio).

    Args:
        points: the cloud.
        matrix: its `covariance`, S / n, if it is known.

    >>> squared_distance_moments(torch.tensor([[0.0], [1.0], [3.0]]))
    Moments(mean=4.66..., sd=3.29...)
    """
    n, mean = len(points), points.double().mean(0)
    lengths = torch.cat([(block.double() - mean).square().sum(1) for block in points.split(_ROWS)])
    scatter = n * (covariance(points) if matrix is None else matrix)
    pairs = n * (n - 1)
    first = 2 * n * lengths.sum() / pairs
    square = (2 * n * lengths.square().sum() + 2 * lengths.sum().square() + 4 * scatter.square().sum()) / pairs
    return _moments(first, square)


class PairedCosines(NamedTuple):
    """Mean cosine of rows of two clouds that belong together, and of rows that do not."""

    own: float
    others: float


def paired_cosines(a: Float[Tensor, "points dim"], b: Float[Tensor, "points dim"]) -> PairedCosines:
    """Mean of cos(a_i, b_i), and of cos(a_i, b_j) over all i ≠ j: what any order of the rows gives. Unitless.

    >>> paired_cosines(torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    PairedCosines(own=1.0, others=0.0)
    """
    a, b = F.normalize(a.double(), dim=-1), F.normalize(b.double(), dim=-1)
    n, own = len(a), (a * b).sum()
    return PairedCosines(float(own / n), float((a.sum(0) @ b.sum(0) - own) / (n * (n - 1))))


class GroupedCosines(NamedTuple):
    """Mean cosines of pairs within a group and of pairs from two groups; NaN without such a pair."""

    within: float
    between: float


def grouped_cosines(points: Float[Tensor, "points dim"], groups: Int[Tensor, "points"]) -> GroupedCosines:
    """Mean cosine over all pairs within groups (tokens of a sentence), and over all pairs between them. Unitless.

    >>> grouped_cosines(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1]))
    GroupedCosines(within=1.0, between=0.0)
    """
    unit = F.normalize(points.double(), dim=-1)
    n, count = len(unit), int(groups.max()) + 1
    sums = unit.new_zeros(count, unit.shape[1]).index_add_(0, groups, unit)
    sizes = torch.bincount(groups, minlength=count).double()
    own = unit.square().sum()
    within, pairs_within = sums.square().sum() - own, (sizes * (sizes - 1)).sum()
    between, pairs_between = sums.sum(0).square().sum() - own - within, n * (n - 1) - pairs_within
    return GroupedCosines(float(within / pairs_within), float(between / pairs_between))


def density_ratios(
    points: Float[Tensor, "points dim"], centres: Sequence[float], narrow: float = 0.01, wide: float = 0.03
) -> list[float]:
    """Density of the cosines of all pairs at each centre over that beside it. 1: nothing is there; NaN: no pair beside.

    The share of cosines within ± `narrow`, over the mean share of the intervals of the same width on both sides of it,
    ± [`narrow`, `wide`]. Costs n² D operations, a block of rows at a time.
    """
    unit = F.normalize(points.float(), dim=-1)
    counts = torch.zeros(len(centres), 2, dtype=torch.int64, device=unit.device)
    lowest, highest = min(centres) - 2 * wide, max(centres) + 2 * wide  # with room for rounding
    for start in range(0, len(unit), _ROWS):
        stop = min(start + _ROWS, len(unit))
        cosines = unit[start:stop] @ unit[start:].mT
        rows = torch.arange(stop - start, device=unit.device)
        cosines[:, : stop - start].masked_fill_(rows[:, None] >= rows, torch.inf)  # each pair once, none with itself
        near = cosines[(cosines > lowest) & (cosines < highest)]  # often few, and looked at again for each centre
        for i, centre in enumerate(centres):
            away = (near - centre).abs_()
            counts[i] += torch.stack([torch.count_nonzero(away < narrow), torch.count_nonzero(away < wide)])
    inside, around = counts.double().unbind(1)
    ratios: list[float] = (inside / (around - inside) * (wide - narrow) / narrow).tolist()
    return ratios


def _moments(mean: Tensor, square: Tensor) -> Moments:
    """Of the mean and the mean square; what rounding has left below zero is zero."""
    return Moments(float(mean), float((square - mean.square()).clamp_min(0).sqrt()))
