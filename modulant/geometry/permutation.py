"""Mantel's test: does one matrix of pairs follow another, by permutations of the items rather than of the pairs?

Pairs that share an item are not independent, so a p value that counts them as such is too small.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
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
