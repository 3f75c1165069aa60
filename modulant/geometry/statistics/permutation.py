"""Tests by permutation of items.

Mantel's: does one matrix of pairs follow another? Pairs that share an item are not independent, so that a p value that
counts them as such is too small. And which of many figures goes with one, given another?
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

_PAIRS = 2**19  # of permuted matrices at once


class Mantel(NamedTuple):
    """Pearson's r over pairs i < j, its two-sided p, and the standard deviation of r under permutation.

    Where nothing varies r is NaN.
    """

    r: float
    p: float
    null_sd: float


def mantel(
    x: Float[Tensor, "items items"],
    y: Float[Tensor, "items items"],
    permutations: int = 19_999,
    seed: int = 42,
    given: Float[Tensor, "items items"] | None = None,
) -> Mantel:
    """Correlate two symmetric matrices of pairs, and permute the items of `x` as the null.

    p = (1 + #{|r*| ≥ |r|}) / (N + 1). With `given`, r is the partial correlation: what a third matrix explains of both
    is taken away, and each permuted `x` loses what it shares with it.

    Raises:
        ValueError: fewer than 3 items, matrices of different sizes, or fewer than 1 permutation.

    >>> line = torch.arange(5.0)
    >>> mantel((line[:, None] - line).abs(), -((line[:, None] - line).abs()), 99).r
    -1.0
    """
    n = len(x)
    if n < 3 or len(y) != n or (given is not None and len(given) != n) or permutations < 1:
        raise ValueError(
            f"mantel: got {n} and {len(y)} items and {permutations} permutations; equal sizes of at least 3"
        )
    i, j = torch.triu_indices(n, n, 1)
    target = _standard(y.double().cpu()[i, j])
    nuisance = None if given is None else _standard(given.double().cpu()[i, j])
    if nuisance is not None:
        target = _standard(target - (target @ nuisance) * nuisance)
    # Permuted items have the same pairs in another order, and so the same mean and length.
    own = _standard(x.double().cpu()[i, j])
    r = float(_partial(own, nuisance) @ target)
    values = own.new_zeros(n, n).index_put_((i, j), own).index_put_((j, i), own).flatten()
    generator = torch.Generator().manual_seed(seed)
    found = []
    for start in range(0, permutations, step := max(1, _PAIRS // len(i))):
        count = min(step, permutations - start)
        orders = torch.rand(count, n, generator=generator).argsort(1)
        drawn = values.take(orders[:, i] * n + orders[:, j])
        found.append((drawn if nuisance is None else _partial(drawn, nuisance)) @ target)
    null = torch.cat(found)
    # Permutations that give the same r by another order of sums must count.
    extreme = int((null.abs() >= abs(r) - 1e-12).sum())
    p = (1 + extreme) / (permutations + 1) if r == r else float("nan")
    return Mantel(r, p, float(null.std(correction=0)))


class Association(NamedTuple):
    """Of each of many figures with one target.

    Attributes:
        r: Pearson's, (figures,).
        partial_r: the same without what a nuisance explains of both, linearly.
        p: two-sided, of the partial r by itself.
        p_family: of the largest |partial r| of all figures in each permutation.
        threshold: 95th percentile of those: a |partial r| below it is expected of one figure of so many.
    """

    r: Tensor
    partial_r: Tensor
    p: Tensor
    p_family: Tensor
    threshold: float


def association(
    figures: Float[Tensor, "figures items"],
    target: Float[Tensor, "items"],
    given: Float[Tensor, "items"],
    groups: Int[Tensor, "items"],
    permutations: int = 4999,
    seed: int = 42,
) -> Association:
    """Which of many figures goes with a target, given a nuisance?

    The target is permuted within groups of items that are alike in the nuisance: whatever that explains, linear or
    not, is in the null as well. p = (1 + #{|r*| ≥ |r|}) / (N + 1).

    Args:
        figures: one row each; what does not vary, or is not finite somewhere, has NaN throughout.
        target: what they are compared with.
        given: the nuisance.
        groups: number of each item's group.
        permutations: N.
        seed: of the permutations.
    """
    x, y, g = (_standard(t.double().cpu()) for t in (figures, target, given))
    nuisance = g if bool(g.isfinite().all()) else None  # which does not vary
    partial_x, partial_y = _partial(x, nuisance), _partial(y, nuisance)
    n = len(target)
    noise = torch.rand(permutations, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    groups = groups.cpu()
    orders = torch.empty(permutations, n, dtype=torch.long)
    orders[:, groups.argsort(stable=True)] = (noise + groups).argsort(1)
    null = (_partial(y[orders], nuisance) @ partial_x.mT).abs()
    partial_r = partial_x @ partial_y
    known = partial_r.isfinite()
    largest = null[:, known].amax(1) if known.any() else torch.full((permutations,), torch.nan)
    limit = partial_r.abs() - 1e-12  # permutations that give the same r by another order of sums must count
    p, p_family = ((1 + (values >= limit).sum(0)).double() / (permutations + 1) for values in (null, largest[:, None]))
    missing = torch.tensor(torch.nan, dtype=torch.float64)
    return Association(
        x @ y,
        partial_r,
        torch.where(known, p, missing),
        torch.where(known, p_family, missing),
        float(largest.quantile(0.95)),
    )


def _standard(values: Tensor) -> Tensor:
    """Centred, with length 1; NaN where nothing varies beyond rounding."""
    values = values - values.mean(-1, keepdim=True)
    length = values.norm(dim=-1, keepdim=True)
    return torch.where(length > 1e-12, values / length, torch.nan)


def _partial(values: Tensor, nuisance: Tensor | None) -> Tensor:
    """What is left of standard values without their projection on `nuisance`, standard again."""
    if nuisance is None:
        return values
    return _standard(values - (values @ nuisance).unsqueeze(-1) * nuisance)
