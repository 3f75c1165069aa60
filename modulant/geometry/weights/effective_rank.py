r"""Effective ranks of a matrix from its singular values, and what a Gaussian matrix of the same shape has.

σ are the singular values, e = σ² their energies, k = min(m, n) and c = k / max(m, n). The spectrum of a Gaussian matrix
is Marchenko and Pastur's (1967), on x = σ²/max(m, n) between (1 − √c)² and (1 + √c)²; the nulls are its moments and
quantiles, and the entropy is Page's (1993). All of them are exact for large matrices.
"""

import math
from collections.abc import Mapping
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from modulant.geometry.clouds.dimensions import (
    dimensions_for,
    eigenvalues_of,
    entropy_rank,
    gram_sum,
    participation_ratio,
)

# Below this share of the largest one, singular values of an fp64 Gram matrix are round-off: √2⁻⁵², and some room.
SMALLEST = 1e-7
_POINTS = 8192  # at which the density is integrated; the error is below 1e-6
_ROWS = 8192  # in fp64 at once
_PROFILE = 25  # places along a spectrum
_STEPS = 128  # of Lanczos at most, and where it stops: its residual over the eigenvalue
_RESIDUAL = 1e-5


def singular_values(matrix: Float[Tensor, "m n"], exact: bool = False) -> Float[Tensor, "k"]:
    """Singular values, descending, in fp64: roots of the eigenvalues of the smaller Gram matrix.

    The Gram matrix is summed over blocks of rows, so that an embedding table is never copied to fp64 as a whole. Values
    below `SMALLEST` of the largest one are round-off.

    Args:
        matrix: of any floating type.
        exact: by a singular value decomposition in fp64, which takes 2 to 10 times as long.
    """
    if exact:
        return torch.linalg.svdvals(matrix.double())
    return eigenvalues_of(gram_sum(block.double() for block in _tall(matrix).split(_ROWS))).sqrt()


def stable_rank(singular: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
    r"""Σe / e₁, the squared Frobenius norm over the squared spectral norm: 1 (rank one) … k (all σ equal).

    >>> stable_rank(torch.tensor([2.0, 1.0, 1.0]))
    tensor(1.5000)
    """
    energies = singular.square()
    return energies.sum(-1) / energies.amax(-1)


def leading_ranks(matrix: Float[Tensor, "m n"]) -> dict[str, float]:
    r"""``stable_rank`` and ``participation_ratio`` of `effective_ranks`, without the spectrum.

    Of the smaller Gram matrix G, whose products are fp32: Σe = tr G, Σe² = ‖G‖_F², and e₁ by Lanczos. Relative errors
    are below 1e-5; NaN for a matrix of zeros.

    >>> {name: round(value, 4) for name, value in leading_ranks(torch.diag(torch.tensor([2.0, 1.0, 1.0]))).items()}
    {'stable_rank': 1.5, 'participation_ratio': 2.0}
    """
    gram = gram_sum(block.float() for block in _tall(matrix).split(_ROWS))
    energy, first = gram.trace(), _largest_eigenvalue(gram.float())
    if not energy:
        return dict.fromkeys(("stable_rank", "participation_ratio"), math.nan)
    return {
        "stable_rank": float(energy / first),
        "participation_ratio": float(energy.square() / gram.square().sum()),
    }


def _largest_eigenvalue(gram: Float[Tensor, "k k"]) -> float:
    """Of a positive matrix, by Lanczos with full orthogonalisation, to within its residual; 0 of a matrix of zeros."""
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(len(gram), generator=generator).to(gram.device)
    basis = (vector / vector.norm()).unsqueeze(0)
    diagonal: list[float] = []
    beside: list[float] = []
    largest = 0.0
    for step in range(min(_STEPS, len(gram))):
        vector = gram @ basis[-1]
        diagonal.append(float(vector @ basis[-1]))
        for _ in range(2):  # once more takes away what rounding has left
            vector = vector - basis.mT @ (basis @ vector)
        beside.append(float(vector.norm()))
        tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        off = torch.tensor(beside[:-1], dtype=torch.float64)
        values, vectors = torch.linalg.eigh(tridiagonal + torch.diag(off, 1) + torch.diag(off, -1))
        largest = float(values[-1])
        if beside[-1] * abs(float(vectors[-1, -1])) <= _RESIDUAL * largest or step == len(gram) - 1:
            break
        basis = torch.cat((basis, (vector / vector.norm()).unsqueeze(0)))
    return largest


def _tall(matrix: Float[Tensor, "m n"]) -> Float[Tensor, "long k"]:
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT


def effective_ranks(singular: Float[Tensor, "k"]) -> dict[str, float]:
    r"""Everything that is read off one spectrum.

    Returns:
        ``stable_rank``; ``participation_ratio``; ``entropy_rank``, exp(−Σ p ln p) with p = e/Σe; ``rank90``, the fewest
        directions with 90% of the energy; ``active``, the share of σ > 0.01 σ₁; ``condition``, ln(σ₁/σ_k), at most
        −ln `SMALLEST`, which then means "or more". ``source/participation_ratio`` and ``source/rank90`` are the same of
        σ in place of e, by which some published figures were made. NaN throughout for a matrix of zeros.

    >>> ranks = effective_ranks(torch.ones(10))
    >>> round(ranks["entropy_rank"], 4), ranks["rank90"], ranks["condition"]
    (10.0, 9.0, 0.0)
    """
    if not singular.numel() or singular[0] == 0:
        return dict.fromkeys(_NAMES, math.nan)
    singular = singular.double() / singular[0]
    energies = singular.square()
    return {
        "stable_rank": float(stable_rank(singular)),
        "participation_ratio": float(participation_ratio(energies)),
        "entropy_rank": float(entropy_rank(energies)),
        "rank90": float(dimensions_for(energies, 0.9)),
        "active": float((singular > 0.01).double().mean()),
        "condition": math.log(1 / max(float(singular[-1]), SMALLEST)),
        "source/participation_ratio": float(participation_ratio(singular)),
        "source/rank90": float(dimensions_for(singular, 0.9)),
    }


_NAMES = (
    "stable_rank",
    "participation_ratio",
    "entropy_rank",
    "rank90",
    "active",
    "condition",
    "source/participation_ratio",
    "source/rank90",
)


@lru_cache(maxsize=256)
def gaussian_ranks(m: int, n: int) -> Mapping[str, float]:
    r"""What `effective_ranks` of an m × n matrix of independent Gaussians tends to, whatever their scale.

    stable rank mn/(√m + √n)², participation ratio k/(1 + c), entropy rank k exp(−c/2); of a square matrix ln σ₁/σ_k has
    the mean ln k + 1.54 (Edelman 1988), of others the limit ln((1 + √c)/(1 − √c)).

    >>> {name: round(value, 2) for name, value in gaussian_ranks(512, 512).items()}["stable_rank"]
    128.0
    """
    k, c = min(m, n), min(m, n) / max(m, n)
    x, mass = _marchenko_pastur(c)
    roots = x.sqrt()
    ends = (1 - math.sqrt(c), 1 + math.sqrt(c))
    condition = math.log(k) + 1.54 if c == 1 else math.log(ends[1] / max(ends[0], 1e-12))
    return {
        "stable_rank": m * n / (math.sqrt(m) + math.sqrt(n)) ** 2,
        "participation_ratio": k / (1 + c),
        "entropy_rank": k * math.exp(-c / 2),
        "rank90": k * _share_of_largest(x, mass),
        "active": float(mass[roots > 0.01 * ends[1]].sum()),
        "condition": condition,
        "source/participation_ratio": k * float((roots * mass).sum()) ** 2,  # the mean of x is 1
        "source/rank90": k * _share_of_largest(roots, mass),
    }


def spectrum_profile(singular: Float[Tensor, "k"]) -> list[float]:
    """log₁₀(e / mean e) from the largest energy to the smallest, at 25 equal shares of the directions.

    e / mean e counts as `SMALLEST`² at least, and is NaN for a matrix of zeros.

    Profiles of matrices of any size can be laid upon each other, and upon `gaussian_profile`.

    >>> set(spectrum_profile(torch.ones(50)))
    {0.0}
    """
    energies = singular.double().square()
    places = (torch.arange(_PROFILE, dtype=torch.float64) + 0.5) / _PROFILE * len(energies) - 0.5
    low = places.floor().long().clamp(0, len(energies) - 1)
    high = (low + 1).clamp(max=len(energies) - 1)
    logs = (energies / energies.mean()).clamp_min(SMALLEST**2).log10().cpu()
    profile: list[float] = torch.lerp(logs[low], logs[high], (places - low).clamp(0, 1)).tolist()
    return profile


@lru_cache(maxsize=256)
def gaussian_profile(m: int, n: int) -> tuple[float, ...]:
    """`spectrum_profile` of a large Gaussian matrix of this shape: quantiles of Marchenko and Pastur's density."""
    x, mass = _marchenko_pastur(min(m, n) / max(m, n))
    below = mass.cumsum(0)
    shares = 1 - (torch.arange(_PROFILE, dtype=torch.float64) + 0.5) / _PROFILE
    return tuple(x[torch.searchsorted(below, shares).clamp(max=len(x) - 1)].log10().tolist())


def _marchenko_pastur(c: float) -> tuple[Tensor, Tensor]:
    """Places of the density, ascending, and the probability of each.

    With x = 1 + c − 2√c cos θ the density √((x₊ − x)(x − x₋)) / (2πcx) dx is 2 sin²θ / (πx) dθ, without its steep ends.
    """
    theta = (torch.arange(_POINTS, dtype=torch.float64) + 0.5) * (math.pi / _POINTS)
    x = 1 + c - 2 * math.sqrt(c) * theta.cos()
    mass = 2 * theta.sin().square() / x
    return x, mass / mass.sum()


def _share_of_largest(values: Tensor, mass: Tensor, share: float = 0.9) -> float:
    """Probability of the largest values that have this share of the mean."""
    values, mass = values.flip(0), mass.flip(0)
    parts = (values * mass).cumsum(0)
    return float(mass.cumsum(0)[(parts >= share * parts[-1]).double().argmax()])
