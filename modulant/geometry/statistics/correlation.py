"""Correlations of many million pairs from streamed sums: no pair is ever stored.

Pearson's coefficient follows from six sums. Where one variable has few values (path similarity has one for each path
length), pairs fall into classes: Pearson's follows exactly from each class's count, sum and sum of squares, Spearman's
from each class's histogram. All sums are in fp64.
"""

import torch
from jaxtyping import Float, Num, Shaped
from torch import Tensor


def mean_cosine(a: Float[Tensor, "points dim"], b: Float[Tensor, "points dim"]) -> Float[Tensor, ""]:
    """Mean over rows of cos(a_i, b_i), in fp32 or more. 1: all directions agree; a row of zeros counts 0.

    >>> mean_cosine(torch.eye(2), torch.tensor([[2.0, 0.0], [3.0, 0.0]]))
    tensor(0.5000)
    """
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    with torch.autocast(a.device.type, enabled=False):
        return torch.nn.functional.cosine_similarity(a.to(dtype), b.to(dtype), dim=-1).mean()


def masked_mean(
    hidden: Float[Tensor, "batch tokens dim"], mask: Shaped[Tensor, "batch tokens"]
) -> Float[Tensor, "batch dim"]:
    """Mean over the tokens whose mask is not 0, in fp32; NaN for a row without one.

    >>> masked_mean(torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]]), torch.tensor([[1, 1, 0]]))
    tensor([[2., 3.]])
    """
    weights = (mask != 0).unsqueeze(-1).float()
    return (hidden.float() * weights).sum(1) / weights.sum(1)


def pearson_from_sums(
    n: Float[Tensor, "*batch"],
    x: Float[Tensor, "*batch"],
    y: Float[Tensor, "*batch"],
    xx: Float[Tensor, "*batch"],
    yy: Float[Tensor, "*batch"],
    xy: Float[Tensor, "*batch"],
    flat: float = 0.0,
) -> Float[Tensor, "*batch"]:
    """Pearson's r from Σ 1, Σ x, Σ y, Σ x², Σ y² and Σ xy; centre x and y first, roughly, where these are large.

    Args:
        flat: share of a mean square up to which a variance is rounding error.

    Returns:
        r; NaN without pairs, or where x or y does not vary.

    >>> x, y = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 7.0])
    >>> pearson_from_sums(torch.tensor(3.0), x.sum(), y.sum(), x @ x, y @ y, x @ y)
    tensor(0.9934)
    """
    x, y, xx, yy, xy = (term / n for term in (x, y, xx, yy, xy))
    spread_x, spread_y = xx - x.square(), yy - y.square()
    varies = (n > 0) & (spread_x > flat * xx) & (spread_y > flat * yy)
    r = (xy - x * y) / (spread_x.clamp_min(0) * spread_y.clamp_min(0)).sqrt()
    return torch.where(varies, r, torch.nan)


def weighted_pearson(
    x: Float[Tensor, "*pairs"], y: Float[Tensor, "*pairs"], weights: Float[Tensor, "*pairs"]
) -> Float[Tensor, ""]:
    """Pearson's r of x and y, each pair counted `weights` times; differentiable in x, in the dtype of x.

    0 with a gradient of zeros where x does not vary, by less than sd 1e-6. It waits for no device: y must vary.

    >>> x, y = torch.tensor([1.0, 2.0, 3.0, 9.0]), torch.tensor([2.0, 4.0, 7.0, 0.0])
    >>> weighted_pearson(x, y, torch.tensor([1.0, 1.0, 1.0, 0.0]))
    tensor(0.9934)
    """
    n = weights.sum()
    x = (x - (weights * x).sum() / n) * weights.sqrt()
    y = (y - (weights * y).sum() / n) * weights.sqrt()
    spread = x.square().sum()
    varies = spread > 1e-12 * n
    # Both branches of `where` must be finite, or the gradient is not.
    r = (x * y).sum() / (torch.where(varies, spread, 1.0) * y.square().sum()).sqrt()
    return torch.where(varies, r, 0.0 * r)


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

    >>> spearman_from_histograms(torch.tensor([[2, 1], [1, 2]]))
    tensor(0.3333, dtype=torch.float64)
    """
    table = histograms.double()
    by_class, by_bin = table.sum(1), table.sum(0)
    x, y = _centred_mid_ranks(by_class), _centred_mid_ranks(by_bin)
    covariance = x @ table @ y
    return covariance / ((by_class * x.square()).sum() * (by_bin * y.square()).sum()).sqrt()


def centred_ranks(values: Float[Tensor, "values"]) -> Float[Tensor, "values"]:
    """Ranks in ascending order, ties sharing the mean of theirs, minus the mean of all; in fp64.

    >>> centred_ranks(torch.tensor([5.0, 1.0, 5.0, 9.0]))
    tensor([ 0.0000, -1.5000,  0.0000,  1.5000], dtype=torch.float64)
    """
    _, group, counts = values.unique(return_inverse=True, return_counts=True)
    return _centred_mid_ranks(counts.double())[group]


def partial_correlation(
    x: Float[Tensor, "items"],
    y: Float[Tensor, "items"],
    given: Float[Tensor, "items others"],
    weights: Num[Tensor, "replicates items"] | None = None,
) -> Float[Tensor, "replicates"]:
    """Pearson's r of what is left of x and y without their best linear fits by `given`, in fp64.

    NaN where nothing of x or y is left. Without columns in `given` it is Pearson's r itself.

    Args:
        weights: how often each item counts in each replicate; None: once, in one replicate.
    """
    columns = torch.column_stack([x, y, given]).double()
    columns = columns - columns.mean(0)
    columns = columns / columns.norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
    counts = columns.new_ones(1, len(columns)) if weights is None else weights.to(columns)
    total, n = counts.sum(1)[:, None, None], columns.shape[1]
    products = (columns.unsqueeze(2) * columns.unsqueeze(1)).flatten(1)
    means = counts @ columns / total.squeeze(2)
    matrix = (counts @ products).unflatten(1, (n, n)) / total - means.unsqueeze(2) * means.unsqueeze(1)
    left = matrix[:, :2, :2]
    if n > 2:  # Schur's complement: the covariance of the residuals
        explained = torch.linalg.lstsq(matrix[:, 2:, 2:], matrix[:, 2:, :2]).solution
        left = left - matrix[:, :2, 2:] @ explained
    spread = left.diagonal(dim1=1, dim2=2)
    own = matrix.diagonal(dim1=1, dim2=2)[:, :2]
    varies = (spread > 1e-12 * own).all(1) & (own > 0).all(1)
    r = left[:, 0, 1] / spread.clamp_min(0).prod(1).sqrt()
    return torch.where(varies, r.clamp(-1, 1), torch.nan)


def _centred_mid_ranks(counts: Tensor) -> Tensor:
    """Mean rank of each group of ties, minus the mean of all ranks."""
    return counts.cumsum(0) - counts / 2 - counts.sum() / 2
