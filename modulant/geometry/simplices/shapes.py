r"""Edges and volumes of many simplices of several kinds at once, with the gradient written out.

`squared_edge_lengths` and `squared_simplex_volume` take some hundred small operations for several kinds; here a dozen
larger ones do all kinds together. Points lie along the last axis, so that vector registers hold neighbours; what
differs between kinds is in tables. A Gram matrix is padded to 4 × 4 by ones on its diagonal, which changes no
determinant; its entries follow from squared lengths, G_ij = ½ (s_0i + s_0j − s_ij).

The forward pass gathers and subtracts, so no precision setting of a GPU's matrix products affects it. The backward pass
multiplies by small constant matrices instead of scattering: no two threads add into one place, so its bits repeat.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from math import factorial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from modulant.geometry.simplices.volumes import squared_edge_lengths, squared_simplex_volume

LARGEST = 4  # k of a simplex whose volume is written out; larger ones take `shape_features`
_PAIRS = list(combinations(range(LARGEST), 2))
_ENTRIES = [(i, j) for i in range(LARGEST) for j in range(i, LARGEST)]  # of a symmetric matrix
# det = Σ sign · (minor of rows 0, 1 in columns c, d) · (minor of rows 2, 3 in the other two columns)
_OTHERS = [next(p for p in _PAIRS if not set(p) & set(pair)) for pair in _PAIRS]
_SIGNS = [(-1.0) ** (1 + c + d) for c, d in _PAIRS]


class _Tables(NamedTuple):
    """For one choice of kinds. S stands for the squared lengths, a zero and a one, in this order; G for the entries of
    the Gram matrices; M for the eight factors of a product of minors, (a b − c d)(e f − g h), for each of six products.
    """

    starts: Tensor  # (edges,) first vertex of each edge
    ends: Tensor  # (edges,)
    at_vertex: Tensor  # (vertices, edges): −1 where an edge starts, +1 where it ends
    gram: Tensor  # (3 · 10 · kinds,) rows of S: G = ½ (S[0] + S[1] − S[2])
    by_edge: Tensor  # (edges, 10 · kinds): ∂G/∂s
    factors: Tensor  # (8 · 6,) entries of G that M is made of
    partners: Tensor  # (8 · 6,) entry of G that each factor is multiplied by in its minor
    by_entry: Tensor  # (10, 8 · 6): −1 for c, d, g and h, in the column of each factor that is this entry of G
    signs: Tensor  # (6, 1, 1)
    scale: Tensor  # (kinds, 1): 1 / (k!)²
    order: Tensor  # (features,) each kind's edges and volume together, of all edges and then all volumes
    unorder: Tensor  # (features,) the other way


def shape_features(
    vertices: Float[Tensor, "vertices dim points"], ks: Sequence[int]
) -> Float[Tensor, "features points"]:
    """Squared edge lengths of each simplex, in the order of `squared_edge_lengths`, then its squared volume.

    Simplices of the kinds `ks` follow one another along the first axis, k + 1 vertices each; so do the features of
    each, k (k + 1) / 2 + 1 in number. Units: length², and length^(2k) for the volume. Kind by kind, with autograd.

    Raises:
        ValueError: another number of vertices than `ks` asks for.
    """
    if len(vertices) != sum(k + 1 for k in ks):
        raise ValueError(f"shape_features: {len(vertices)} vertices; simplices of k = {tuple(ks)} have another number")
    features = []
    for points in torch.split(vertices.movedim(-1, 0), [k + 1 for k in ks], dim=1):
        features += [squared_edge_lengths(points).t(), squared_simplex_volume(points)[None]]
    return torch.cat(features)


def features_of(vertices: Tensor, ks: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """`shape_features` of all kinds at once, k up to `LARGEST`; and what `gradient_of_features` needs: edge vectors
    (edges, dim, N) and Gram entries (10, kinds, N)."""
    tables = _tables(ks, vertices.device, vertices.dtype)
    differences = vertices.index_select(0, tables.ends) - vertices.index_select(0, tables.starts)
    squared = differences.square().sum(1)  # (edges, points)
    gram = _gram(squared, tables, len(ks))
    upper, lower = _minors(gram, tables)
    volumes = (tables.signs * upper * lower).sum(0) * tables.scale  # (kinds, points)
    return torch.cat([squared, volumes]).index_select(0, tables.order), differences, gram


def gradient_of_features(by_features: Tensor, differences: Tensor, gram: Tensor, ks: tuple[int, ...]) -> Tensor:
    """The gradient with respect to the vertices, (vertices, dim, N)."""
    tables = _tables(ks, gram.device, gram.dtype)
    by_edge, by_volume = by_features.index_select(0, tables.unorder).split([len(differences), len(ks)])
    weight = tables.signs * (by_volume * tables.scale)
    upper, lower = _minors(gram, tables)
    by_minor = torch.stack([weight * lower, weight * upper]).unsqueeze(1)  # (2, 1, 6, kinds, points)
    partners = gram.index_select(0, tables.partners).view(2, 4, 6, *gram.shape[1:])
    by_gram = tables.by_entry @ (by_minor * partners).view(48, gram[0].numel())  # (10, kinds · points)
    by_edge = torch.addmm(by_edge, tables.by_edge, by_gram.view(tables.by_edge.shape[1], differences.shape[-1]))
    pull = (2 * by_edge).unsqueeze(1) * differences  # (edges, dim, points); each edge pulls at its two ends
    return (tables.at_vertex @ pull.flatten(1)).view(len(tables.at_vertex), *pull.shape[1:])


def _gram(squared: Tensor, tables: _Tables, kinds: int) -> Tensor:
    """(10, kinds, points), the entries of the padded Gram matrices."""
    padded = torch.cat([squared, squared.new_zeros(1, squared.shape[1]), squared.new_ones(1, squared.shape[1])])
    first, second, across = padded.index_select(0, tables.gram).view(3, 10, kinds, squared.shape[1])
    return 0.5 * (first + second - across)


def _minors(gram: Tensor, tables: _Tables) -> tuple[Tensor, Tensor]:
    """Of rows 0 and 1, and of rows 2 and 3 in the other columns; each (6, kinds, points)."""
    a, b, c, d, e, f, g, h = gram.index_select(0, tables.factors).view(8, 6, *gram.shape[1:]).unbind(0)
    return a * b - c * d, e * f - g * h


@lru_cache(maxsize=32)
def _tables(ks: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> _Tables:
    starts: list[int] = []
    ends: list[int] = []
    n_vertices = 0
    number: dict[tuple[int, int, int], int] = {}  # kind, i, j → edge
    for kind, k in enumerate(ks):
        for i, j in combinations(range(k + 1), 2):
            number[kind, i, j] = len(starts)
            starts.append(n_vertices + i)
            ends.append(n_vertices + j)
        n_vertices += k + 1
    n_edges = len(starts)
    zero, one = n_edges, n_edges + 1

    at_vertex = torch.zeros(n_vertices, n_edges)
    for edge, (start, end) in enumerate(zip(starts, ends, strict=True)):
        at_vertex[start, edge], at_vertex[end, edge] = -1, 1

    gram: list[list[int]] = [[], [], []]
    by_edge = torch.zeros(n_edges, len(_ENTRIES) * len(ks))
    for entry, (i, j) in enumerate(_ENTRIES):
        for kind, k in enumerate(ks):
            if j >= k:  # padding
                rows = (one, one, zero) if i == j else (zero, zero, zero)
            else:
                across = zero if i == j else number[kind, i + 1, j + 1]
                rows = (number[kind, 0, i + 1], number[kind, 0, j + 1], across)
                for row, weight in zip(rows, (0.5, 0.5, -0.5), strict=True):
                    if row != zero:
                        by_edge[row, entry * len(ks) + kind] += weight
            for column, row in zip(gram, rows, strict=True):
                column.append(row)

    entry_of = {pair: n for n, (i, j) in enumerate(_ENTRIES) for pair in ((i, j), (j, i))}
    factors: list[list[int]] = [[] for _ in range(8)]
    for first_row, columns in ((0, _PAIRS), (2, _OTHERS)):
        for c, d in columns:
            places = [(first_row, c), (first_row + 1, d), (first_row, d), (first_row + 1, c)]
            for n, place in enumerate(places):
                factors[2 * first_row + n].append(entry_of[place])
    partners = [factors[n ^ 1] for n in range(8)]
    by_entry = torch.zeros(len(_ENTRIES), 8, 6)
    for n, entries in enumerate(factors):
        for product, entry in enumerate(entries):
            by_entry[entry, n, product] = -1 if n % 4 > 1 else 1

    order: list[int] = []
    for kind, k in enumerate(ks):
        order += [*(number[kind, i, j] for i, j in combinations(range(k + 1), 2)), n_edges + kind]

    def integers(rows: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([value for row in rows for value in row], device=device)

    def reals(values: Any, *shape: int) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float64).to(device, dtype).view(*shape)

    return _Tables(
        starts=integers([starts]),
        ends=integers([ends]),
        at_vertex=reals(at_vertex, n_vertices, n_edges),
        gram=integers(gram),
        by_edge=reals(by_edge, n_edges, -1),
        factors=integers(factors),
        partners=integers(partners),
        by_entry=reals(by_entry, len(_ENTRIES), 48),
        signs=reals(_SIGNS, 6, 1, 1),
        scale=reals([1 / factorial(k) ** 2 for k in ks], len(ks), 1),
        order=integers([order]),
        unorder=integers([torch.tensor(order).argsort().tolist()]),
    )
