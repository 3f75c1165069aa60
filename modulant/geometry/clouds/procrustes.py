"""Aligning one cloud with another: principal axes, and the best rotation (Schönemann 1966)."""

import torch
from jaxtyping import Float
from torch import Tensor


def principal_axes(points: Float[Tensor, "points dim"], n: int) -> Float[Tensor, "n dim"]:
    """The `n` orthonormal directions along which the centred cloud varies most, in descending order.

    Signs are fixed: each axis' largest component is positive.

    Raises:
        ValueError: n below 1 or above the dimension of the points.
    """
    if not 1 <= n <= points.shape[-1]:
        raise ValueError(f"principal_axes: n is {n}; points of {points.shape[-1]} dimensions have 1 to that many axes")
    centred = points.double() - points.double().mean(0)
    axes = torch.linalg.eigh(centred.mT @ centred).eigenvectors.flip(-1)[:, :n].mT
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return (axes * torch.where(largest < 0, -1.0, 1.0)).to(points.dtype)


def orthogonal_procrustes(
    source: Float[Tensor, "points dims"], target: Float[Tensor, "points others"]
) -> Float[Tensor, "dims others"]:
    r"""R = argmin ‖source · R − target‖_F over orthogonal R: U Vᵀ, of sourceᵀ target = U S Vᵀ.

    Reflections are allowed. Centre both clouds first if a shift is not to count. Where the dimensions differ, R has
    orthonormal columns or rows, and is the one that has the largest inner product of source · R with target.
    """
    return nearest_orthogonal(source.double().mT @ target.double())[0].to(source.dtype)


def nearest_orthogonal(cross: Float[Tensor, "dims others"]) -> tuple[Float[Tensor, "dims others"], Float[Tensor, ""]]:
    """U Vᵀ of U S Vᵀ, the nearest matrix with orthonormal columns (or rows), and the sum of S: their inner product.

    Of ``cross = sourceᵀ target`` it is what `orthogonal_procrustes` finds, and Σ S / ‖source · U Vᵀ‖² is the factor by
    which that comes nearest to the target.

    >>> nearest_orthogonal(torch.tensor([[0.0, 2.0], [-1.0, 0.0]]))
    (tensor([[ 0.,  1.],
            [-1.,  0.]]), tensor(3.))
    """
    u, s, vh = torch.linalg.svd(cross, full_matrices=False)
    return u @ vh, s.sum()
