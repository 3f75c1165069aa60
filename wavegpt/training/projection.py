"""Projections of a gradient onto singular subspaces: of the weight (the source's coherence), or of itself (GaLore)."""

import torch
from jaxtyping import Float
from torch import Tensor


def share_of(rank: int | float | None, rows: int, columns: int) -> int:
    """The rank r on a matrix: itself, its share of the shorter side, or all of that."""
    shorter = min(rows, columns)
    if rank is None:
        return shorter
    return max(1, min(shorter, round(rank * shorter) if isinstance(rank, float) else rank))


def is_identity(weight: Float[Tensor, "m n"], rank: int | float | None) -> bool:
    """Whether projecting on the weight's subspaces changes nothing: it is square and of full rank."""
    rows, columns = weight.shape
    return rows == columns and share_of(rank, rows, columns) == rows


def weight_bases(
    weight: Float[Tensor, "m n"], rank: int | float | None = None
) -> tuple[Float[Tensor, "m r"] | None, Float[Tensor, "n r"] | None]:
    """Orthonormal U of the column space and V of the row space, of the r largest singular values; None: all of a side.

    At full rank only the longer side is a proper subspace, and a QR decomposition gives it, cheaper than an SVD.
    """
    rows, columns = weight.shape
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    r = share_of(rank, rows, columns)
    if r == min(rows, columns):
        if rows == columns:
            return None, None
        if rows < columns:
            return None, torch.linalg.qr(wide.mT).Q
        return torch.linalg.qr(wide).Q, None
    U, _, Vh = torch.linalg.svd(wide, full_matrices=False)
    return U[:, :r], Vh[:r].mT


def project(gradient: Float[Tensor, "m n"], bases: tuple[Tensor | None, Tensor | None]) -> Float[Tensor, "m n"]:
    """U Uᵀ g V Vᵀ; a missing basis is the identity."""
    U, V = bases
    wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    if U is not None:
        wide = U @ (U.mT @ wide)
    if V is not None:
        wide = (wide @ V) @ V.mT
    return wide.to(gradient.dtype)


def gradient_basis(gradient: Float[Tensor, "m n"], rank: int | float | None) -> tuple[Tensor | None, Tensor | None]:
    """Bases of the r leading singular directions of the gradient on its shorter side, as for `project`."""
    rows, columns = gradient.shape
    wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    r = share_of(rank, rows, columns)
    U, _, Vh = torch.linalg.svd(wide, full_matrices=False)
    return (U[:, :r], None) if rows <= columns else (None, Vh[:r].mT)


def compress(gradient: Tensor, bases: tuple[Tensor | None, Tensor | None]) -> Tensor:
    """Coordinates of a gradient in a one-sided basis."""
    U, V = bases
    return U.mT @ gradient if U is not None else gradient @ V  # type: ignore[operator]


def expand(inner: Tensor, bases: tuple[Tensor | None, Tensor | None]) -> Tensor:
    """Back from coordinates in a one-sided basis."""
    U, V = bases
    return U @ inner if U is not None else inner @ V.mT  # type: ignore[union-attr]


def orthogonalised(matrix: Float[Tensor, "m n"], steps: int = 5) -> Float[Tensor, "m n"]:
    """Near U Vᵀ of a matrix, by Muon's quintic Newton–Schulz iteration: singular values come to 0.7 … 1.2."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrix.dtype)
