"""Edges and volumes of simplices, differentiable and batched.

A k-simplex is k+1 points: an edge, a triangle, a tetrahedron, a pentachoron. Its squared volume is a polynomial in the
Gram matrix of its edge vectors, so up to k = 4 it is written out: no factorisation, no division, and therefore a finite
gradient on a flat simplex too. Sixteen-bit input is converted to fp32, under autocast as well: with 8 bits of mantissa
the determinant of four nearly dependent edges is lost.
"""

import math
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor


def regular_simplex(k: int, dim: int) -> Float[Tensor, "vertices dim"]:
    r"""The k+1 vertices of a regular k-simplex, edges 1, centred at the origin, in the first k of `dim` dimensions.

    Columns of the Helmert matrix over √2: the k+1 unit vectors in coordinates of the hyperplane through them. Squared
    volume (k+1) / (2^k (k!)²).

    Raises:
        ValueError: k below 1, or fewer dimensions than k.

    >>> regular_simplex(1, 2)
    tensor([[ 0.5000,  0.0000],
            [-0.5000,  0.0000]])
    """
    if k < 1:
        raise ValueError(f"regular_simplex: k is {k}; a simplex needs k >= 1")
    if dim < k:
        raise ValueError(f"regular_simplex: dim is {dim}; a regular {k}-simplex needs at least {k} dimensions")
    vertices = torch.zeros(k + 1, dim, dtype=torch.float64)
    for j in range(1, k + 1):
        scale = 1 / math.sqrt(2 * j * (j + 1))
        vertices[:j, j - 1] = scale
        vertices[j, j - 1] = -j * scale
    return vertices.to(torch.get_default_dtype())


def squared_edge_lengths(points: Float[Tensor, "*batch vertices dim"]) -> Float[Tensor, "*batch edges"]:
    """‖p_i − p_j‖² for i < j, in the order of ``itertools.combinations(range(vertices), 2)``.

    >>> squared_edge_lengths(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]]))
    tensor([4., 4., 8.])
    """
    vertices = _at_least_fp32(points).unbind(-2)
    if len(vertices) < 2:
        raise ValueError(
            f"squared_edge_lengths: got {len(vertices)} point{'s' * (len(vertices) != 1)}; an edge needs 2"
        )
    return torch.stack([(a - b).square().sum(-1) for a, b in combinations(vertices, 2)], dim=-1)


def squared_simplex_volume(points: Float[Tensor, "*batch vertices dim"]) -> Float[Tensor, "*batch"]:
    """det(E Eᵀ) / (k!)², E the k edge vectors from vertex 0; the same number as by Cayley–Menger.

    Unit: length^(2k). May come out below zero by rounding when the points are dependent: the relative error is about
    that of the dtype times the squared condition number of the edges.

    Raises:
        ValueError: with fewer than two points there is no volume.

    >>> squared_simplex_volume(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]]))
    tensor(4.)
    """
    first, *others = _at_least_fp32(points).unbind(-2)
    if not others:
        raise ValueError("squared_simplex_volume: got 1 point; a volume needs 2")
    edges = [vertex - first for vertex in others]
    gram = [[(a * b).sum(-1) for b in edges[: i + 1]] for i, a in enumerate(edges)]
    return _symmetric_determinant(gram) / math.factorial(len(edges)) ** 2


def simplex_volume(points: Float[Tensor, "*batch vertices dim"]) -> Float[Tensor, "*batch"]:
    """Volume of the simplex of k+1 points: the square root of `squared_simplex_volume`, 0 where that is negative.

    Unit: length^k. Where it is 0 its gradient is 0, not the infinite slope of the root.

    >>> simplex_volume(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    tensor(0.5000)
    """
    squared = squared_simplex_volume(points)
    solid = squared > 0
    # The inner `where` keeps the infinite slope of sqrt at 0 out of the backward pass (inf · 0 would be NaN).
    return torch.where(solid, torch.where(solid, squared, 1.0).sqrt(), 0.0)


def _at_least_fp32(points: Tensor) -> Tensor:
    return points.float() if points.dtype in (torch.float16, torch.bfloat16) else points


def _symmetric_determinant(g: list[list[Tensor]]) -> Tensor:
    """Determinant of a symmetric matrix, given as the rows of its lower triangle (entries batched)."""
    match len(g):
        case 1:
            return g[0][0]
        case 2:
            return g[0][0] * g[1][1] - g[1][0].square()
        case 3:
            return (
                g[0][0] * (g[1][1] * g[2][2] - g[2][1].square())
                - g[1][0] * (g[1][0] * g[2][2] - g[2][1] * g[2][0])
                + g[2][0] * (g[1][0] * g[2][1] - g[1][1] * g[2][0])
            )
        case 4:
            return _symmetric_determinant_4(g)
    size = range(len(g))
    full = torch.stack([torch.stack([g[max(i, j)][min(i, j)] for j in size], dim=-1) for i in size], dim=-2)
    return torch.linalg.det(full)


def _symmetric_determinant_4(g: list[list[Tensor]]) -> Tensor:
    """Laplace's expansion along the first two rows: six 2 x 2 minors, each times the minor of the other two rows."""
    (a,), (b, c), (d, e, f), (p, q, r, s) = g
    # Rows: [a b d p], [b c e q], [d e f r], [p q r s].
    return (
        (a * c - b * b) * (f * s - r * r)
        - (a * e - b * d) * (e * s - q * r)
        + (a * q - b * p) * (e * r - f * q)
        + (b * e - c * d) * (d * s - p * r)
        - (b * q - c * p) * (d * r - f * p)
        + (d * q - e * p) * (d * q - e * p)
    )
