"""Correlations of many million pairs from sums that stream: no pair is ever stored.

One variable has few values (path similarity has one for each path length), so pairs fall into classes. Pearson's
coefficient follows exactly from each class's count, sum and sum of squares; Spearman's from each class's histogram.
All sums are in fp64.
"""

import torch
from jaxtyping import Float, Num
from torch import Tensor


def cosine_preservation(
    original: Float[Tensor, "points dim"], changed: Float[Tensor, "points dim"]
) -> Float[Tensor, ""]:
    """Mean over rows of cos(original_i, changed_i). 1: no direction changed; a row of zeros counts 0."""
    with torch.autocast(original.device.type, enabled=False):
        return torch.nn.functional.cosine_similarity(original.float(), changed.float(), dim=-1).mean()


def pearson_from_classes(
    values: Float[Tensor, "classes"],
    counts: Num[Tensor, "classes"],
    sums: Float[Tensor, "classes"],
    squares: Float[Tensor, "classes"],
) -> Float[Tensor, ""]:
    """Pearson's r of (x, y) over pairs grouped by x: `values` of x, and for each Σ 1, Σ y, Σ y².

    NaN where x or y does not vary.
    """
    x, n, y, yy = (t.double() for t in (values, counts, sums, squares))
    total = n.sum()
    x = x - (n * x).sum() / total
    mean = y.sum() / total
    covariance = (x * (y - n * mean)).sum()
    # Σ (y − mean)² = Σ y² − 2 mean Σ y + n mean²; rounding may leave it below zero where y does not vary.
    spread = (yy.sum() - total * mean.square()).clamp_min(0)
    return covariance / ((n * x.square()).sum() * spread).sqrt()


def spearman_from_histograms(histograms: Num[Tensor, "classes bins"]) -> Float[Tensor, ""]:
    """Spearman's ρ of (x, y) from a table of counts: classes in ascending x, bins in ascending y.

    Pearson's r of mid-ranks: ties share the mean of their ranks, and whatever falls into one bin is tied. For M bins
    about equally full that changes ρ by the order of ρ / M². NaN where x or y does not vary.
    """
    table = histograms.double()
    by_class, by_bin = table.sum(1), table.sum(0)
    x, y = _centred_mid_ranks(by_class), _centred_mid_ranks(by_bin)
    covariance = x @ table @ y
    return covariance / ((by_class * x.square()).sum() * (by_bin * y.square()).sum()).sqrt()


def _centred_mid_ranks(counts: Tensor) -> Tensor:
    """Mean rank of each group of ties, minus the mean of all ranks."""
    return counts.cumsum(0) - counts / 2 - counts.sum() / 2
