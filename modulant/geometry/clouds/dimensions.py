"""Spectra of a point cloud: how many directions it uses, by the eigenvalues λ of its covariance.

Nothing here changes under rotation or permutation of the dimensions, and ratios of λ do not change under scaling. A
finite cloud's spectrum is steeper than that of what it was drawn from: compare it with `gaussian_spectrum`.
"""

import math
from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

_ROWS = 8192  # in fp64 at once
_PAIRS = 4096  # of rows, in a pairing
_PANEL = 128  # columns of a Gram matrix that are made at once


def gram_sum(blocks: Iterable[Float[Tensor, "_ dim"]]) -> Float[Tensor, "dim dim"]:
    """Σ XᵀX over blocks of rows, in fp64; products within a block have its own precision.

    What is above the diagonal is computed and copied below it, which is half of the operations.

    >>> gram_sum([torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 1.0]])])
    tensor([[1., 2.],
            [2., 5.]], dtype=torch.float64)
    """
    total: Tensor | None = None
    for block in blocks:
        if total is None:
            total = torch.zeros(block.shape[1], block.shape[1], dtype=torch.float64, device=block.device)
        for start in range(0, len(total), _PANEL):
            total[start : start + _PANEL, start:] += block[:, start : start + _PANEL].mT @ block[:, start:]
    if total is None:
        raise ValueError("gram_sum: got no block of rows")
    return total.triu_() + total.triu(1).mT


def covariance(points: Float[Tensor, "points dim"], centred: bool = True) -> Float[Tensor, "dim dim"]:
    """Σ (x − μ)(x − μ)ᵀ / n in fp64, a block of rows at a time; without `centred`, Σ x xᵀ / n. Unit: length²."""
    mean = points.double().mean(0) if centred else 0.0
    return gram_sum(block.double() - mean for block in points.split(_ROWS)) / len(points)


def eigenvalues_of(covariance: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim"]:
    """Eigenvalues of a covariance, the largest first; what rounding has left below zero is zero."""
    return torch.linalg.eigvalsh(covariance).flip(0).clamp_min(0)


def participation_ratio(eigenvalues: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """Effective number of dimensions (Σλ)² / Σλ². Unitless, from 1 (a line) to D (a sphere); NaN of a single point.

    Biased low for few points: n points of an isotropic Gaussian have (n−1) D / (n−1+D).

    >>> participation_ratio(torch.tensor([2.0, 2.0, 0.0]))
    tensor(2.)
    """
    return eigenvalues.sum(-1).square() / eigenvalues.square().sum(-1)


def unbiased_participation_ratio(
    points: Float[Tensor, "points dim"], pairings: int = 8, seed: int = 42
) -> Float[Tensor, ""]:
    """Participation ratio whose numerator and denominator are unbiased, for few points.

    Rows are paired at random, y = (x₁ − x₂) / √2, which has the covariance Σ and mean 0. With K = Y Yᵀ over m pairs:

        (tr Σ)² ≈ ((tr K)² − Σ K_ii²) / (m (m−1)),    tr Σ² ≈ (Σ K_ij² − Σ K_ii²) / (m (m−1))

    Both are averaged over `pairings` of at most 4,096 pairs each, then divided; the ratio itself is unbiased to first
    order only. Heavy tails widen it. Computed from whichever of K and Yᵀ Y is smaller; NaN where the estimate of tr Σ²
    is not positive.

    Raises:
        ValueError: fewer than 4 points, which make no two pairs.
    """
    n, dim = points.shape
    if n < 4:
        raise ValueError(f"unbiased_participation_ratio: got {n} points; two pairs need at least 4")
    generator = torch.Generator().manual_seed(seed)
    above, below = (torch.zeros((), dtype=torch.float64, device=points.device) for _ in range(2))
    m = min(n // 2, _PAIRS)
    for _ in range(pairings):
        order = torch.randperm(n, generator=generator).to(points.device)
        y = (points[order[:m]].double() - points[order[m : 2 * m]].double()) / math.sqrt(2)
        lengths = y.square().sum(1)
        gram = y.mT @ y if dim < m else y @ y.mT
        above += lengths.sum().square() - lengths.square().sum()
        below += gram.square().sum() - lengths.square().sum()
    return torch.where(below > 0, above / below, torch.nan)


def entropy_rank(eigenvalues: Float[Tensor, "dim"]) -> Float[Tensor, ""]:
    """Effective number of dimensions exp(−Σ p ln p), p = λ / Σλ: less top-heavy than `participation_ratio`. Unitless.

    >>> entropy_rank(torch.tensor([1.0, 1.0, 1.0, 0.0]))
    tensor(3.)
    """
    shares = eigenvalues / eigenvalues.sum()
    return torch.special.entr(shares).sum().exp()


def dimensions_for(eigenvalues: Float[Tensor, "dim"], share: float) -> int:
    """Smallest number of the largest eigenvalues whose sum is at least `share` of all.

    >>> dimensions_for(torch.tensor([6.0, 3.0, 1.0]), 0.8)
    2
    """
    sums = eigenvalues.double().cumsum(0)
    # Rounding of the sum must not add a dimension where the share is met exactly.
    return int(torch.searchsorted(sums, share * sums[-1] * (1 - 1e-12))) + 1


def gaussian_spectrum(points: int, dim: int, draws: int, seed: int) -> list[Float[Tensor, "dim"]]:
    """Eigenvalues of the covariance of `points` isotropic Gaussian points, several draws: the null of a spectrum.

    No point is drawn. (n−1) S = L Lᵀ (Bartlett): L is triangular, its entries below the diagonal are N(0, 1), and the
    squares of its diagonal are χ² with n−1, n−2, … degrees of freedom. Where points are fewer than dimensions, as many
    eigenvalues are zero.
    """
    freedom = points - 1
    rank = min(freedom, dim)
    degrees = torch.arange(freedom, freedom - rank, -1, dtype=torch.float64)
    found = []
    with torch.random.fork_rng(devices=[]):  # χ² takes no generator
        torch.manual_seed(seed)
        for _ in range(draws):
            lower = torch.randn(dim, rank, dtype=torch.float64).tril(-1)
            lower.diagonal().copy_(torch.distributions.Chi2(degrees).sample().sqrt())
            values = torch.linalg.eigvalsh(lower.mT @ lower).flip(0).clamp_min(0) / points
            found.append(torch.cat([values, values.new_zeros(dim - rank)]))
    return found


def gaussian_like(covariance: Float[Tensor, "dim dim"], points: int, draws: int, seed: int) -> Iterator[Tensor]:
    """Yield Gaussian clouds (points, dim) with a given covariance and mean 0, in fp32; drawn on the CPU."""
    values, vectors = torch.linalg.eigh(covariance.double())
    root = (vectors * values.clamp_min(0).sqrt()).mT.float()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(draws):
        yield torch.randn(points, len(covariance), generator=generator).to(root.device) @ root
