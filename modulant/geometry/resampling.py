"""Bootstrap over items: means and correlations of as many items, drawn with replacement."""

import torch
from jaxtyping import Float
from torch import Tensor

from modulant.geometry.correlation import pearson_from_sums


def bootstrap_counts(items: int, replicates: int = 2000, seed: int = 42) -> Float[Tensor, "replicates items"]:
    """How often each item is in each replicate. Drawn on the CPU."""
    drawn = torch.randint(items, (replicates, items), generator=torch.Generator().manual_seed(seed))
    return torch.zeros(replicates, items, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(drawn.shape).double())


def resampled_means(
    values: Float[Tensor, "items *rest"], counts: Float[Tensor, "replicates items"]
) -> Float[Tensor, "replicates *rest"]:
    """Mean over the items in each replicate; what is NaN is left out of it."""
    known = values.isfinite()
    flat, known = (x.double().reshape(len(values), -1) for x in (torch.where(known, values, 0.0), known))
    means = (counts @ flat) / (counts @ known)
    return means.reshape(len(counts), *values.shape[1:])


def resampled_pearson(
    x: Float[Tensor, "figures items"], y: Float[Tensor, "items"], counts: Float[Tensor, "replicates items"]
) -> Float[Tensor, "replicates figures"]:
    """Pearson's r of each figure with y in each replicate; NaN where one does not vary."""
    x, y = x.double() - x.double().mean(-1, keepdim=True), y.double() - y.double().mean()

    def total(values: Tensor) -> Tensor:
        return counts @ values.mT

    ones = torch.ones_like(x)
    return pearson_from_sums(
        total(ones), total(x), total(ones * y), total(x * x), total(ones * y * y), total(x * y), 1e-12
    )


def middle(replicates: Float[Tensor, "replicates *rest"], level: float = 0.95) -> tuple[Tensor, Tensor]:
    """Ends of the middle share of the replicates; NaN where one is NaN."""
    low, high = replicates.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=replicates.dtype), dim=0)
    return low, high
