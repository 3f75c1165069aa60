r"""Edges and volumes of many simplices of several kinds at once, with the gradient written out.

`squared_edge_lengths` and `squared_simplex_volume` take some hundred small operations for several kinds; here a dozen
larger ones do all kinds together. A simplex is given by its edges from its first vertex: its shape depends on no more.
Points lie along the last axis, so that vector registers hold neighbours; what differs between kinds is in tables. A
Gram matrix has ones on its diagonal up to 4 × 4, which changes no determinant, and its determinant is a sum of products
of 2 × 2 minors, without those that are always 0: one product for k = 1 and 2, three for k = 3, six for k = 4. Entries
follow from squared lengths, 2 G_ij = s_0i + s_0j − s_ij.

The forward pass gathers and subtracts, so no precision setting of a GPU's matrix products affects it. The backward pass
multiplies by small constant matrices instead of scattering: no two threads add into one place, so its bits repeat.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from math import factorial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from modulant.geometry.simplices.volumes import squared_edge_lengths, squared_simplex_volume

LARGEST = 4  # k of a simplex whose volume is written out; larger ones take `shape_features`
_COLUMNS = list(combinations(range(LARGEST), 2))


class _Tables(NamedTuple):
    """For one choice of kinds. S stands for all squared lengths (first those from the first vertices), a zero and a
    one; G for the entries of the Gram matrices, a zero and a one; P products of minors (a b − c d)(e f − g h).
    """

    across: Tensor  # (2 · across,) of edges between two other vertices: the edges to their ends, and to their starts
    pulls: Tensor  # (edges from the first vertices, across): −1 where such an edge starts, +1 where it ends
    constants: Tensor  # (2, 1): a zero and a one
    gram: Tensor  # (3 · G,) entries of S: 2 G = S[0] + S[1] − S[2]
    factors: Tensor  # (4 · 2 · P,) entries of G: a and e, b and f, c and g, d and h
    partners: Tensor  # (4 · 2 · P,) of the factors of the other minor, the entry that each is multiplied by
    by_squared: Tensor  # (edges, 4 · 2 · P): ∂/∂S of the factors of the other minor, with the minus of c, d, g and h
    scale: Tensor  # (P, 1): 1 / (2^k (k!)²)
    by_volume: Tensor  # (P, kinds): the scale of each product in the column of its kind
    products: list[int]  # number of products of each kind


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


def features_of(edges: Tensor, ks: tuple[int, ...]) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """`shape_features` of all kinds at once, k up to `LARGEST`, in the order of `order_of` and with a row of zeros.

    Args:
        edges: (Σ k, dim, N), from the first vertex of each simplex to its others.
        ks: the kinds.

    Returns:
        The features, (features + 1, N), and what `gradient_of_features` needs: all edge vectors, (edges, dim, N), the
        entries of 2 G, and the minors.
    """
    tables, points = _tables(ks, edges.device, edges.dtype), edges.shape[-1]
    constants = tables.constants.expand(2, points)
    end, start = edges.index_select(0, tables.across).chunk(2)
    edges = torch.cat([edges, end - start])
    squared = edges.square().sum(1)
    first, second, opposite = torch.cat([squared, constants]).index_select(0, tables.gram).chunk(3)
    gram = torch.add(first, second).sub_(opposite)
    a, b, c, d = gram.index_select(0, tables.factors).view(4, 2, len(tables.scale), points)
    minors = torch.mul(a, b).addcmul_(c, d, value=-1)  # of rows 0 and 1; of rows 2 and 3 in the other columns
    volumes = torch.mul(*minors).mul_(tables.scale).split(tables.products)
    summed = [some if len(some) == 1 else some.sum(0, keepdim=True) for some in volumes]
    return torch.cat([squared, *summed, constants[:1]]), (edges, gram, minors)


def gradient_of_features(
    by_features: Tensor, edges: Tensor, gram: Tensor, minors: Tensor, ks: tuple[int, ...]
) -> Tensor:
    """The gradient with respect to the edges from the first vertices, (Σ k, dim, N); without the row of zeros."""
    tables, n = _tables(ks, gram.device, gram.dtype), sum(ks)
    by_squared, by_volume = by_features.split([len(edges), len(ks)])
    by_other = minors * (tables.by_volume @ by_volume)
    by_factor = gram.index_select(0, tables.partners).view(4, *minors.shape).mul_(by_other)
    by_squared = torch.addmm(by_squared, tables.by_squared, by_factor.flatten(0, 2))
    pull = (by_squared.unsqueeze(1) * edges).flatten(1)  # ∂s/∂e = 2 e; each edge across pulls at two others
    return torch.addmm(pull[:n], tables.pulls, pull[n:], beta=2, alpha=2).view(n, *edges.shape[1:])


def order_of(ks: Sequence[int]) -> list[int]:
    """Where `features_of` puts each of the features of `shape_features`."""
    edge, order = _numbered(ks), []
    for kind, k in enumerate(ks):
        order += [edge[kind, i, j] for i, j in combinations(range(k + 1), 2)] + [len(edge) + kind]
    return order


def _numbered(ks: Sequence[int]) -> dict[tuple[int, int, int], int]:
    """(kind, i, j) → edge: all from first vertices, then all others."""
    edges = [(kind, i, j) for kind, k in enumerate(ks) for i, j in combinations(range(k + 1), 2)]
    return {edge: n for n, edge in enumerate(sorted(edges, key=lambda edge: edge[1] > 0))}


@lru_cache(maxsize=32)
def _tables(ks: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> _Tables:
    edge = _numbered(ks)
    n = sum(ks)
    across = [(edge[kind, 0, i], edge[kind, 0, j]) for kind, i, j in edge if i]
    pulls = torch.zeros(n, len(across))
    for column, (start, end) in enumerate(across):
        pulls[start, column], pulls[end, column] = -1, 1

    zero, one = len(edge), len(edge) + 1
    entries: dict[tuple[int, int, int], tuple[int, int, int]] = {}  # (kind, i, j) → its entries of S
    for kind, k in enumerate(ks):
        for i in range(k):
            for j in range(i, k):
                opposite = zero if i == j else edge[kind, i + 1, j + 1]
                entries[kind, i, j] = (edge[kind, 0, i + 1], edge[kind, 0, j + 1], opposite)
    gram = [*entries.values(), (zero, zero, zero), (one, zero, zero)]
    number = {entry: n for n, entry in enumerate(entries)}

    def entry_of(kind: int, row: int, column: int) -> int:
        i, j = sorted((row, column))
        return number.get((kind, i, j), len(entries) + (i == j))  # padding: the zero, or the one

    factors: list[list[int]] = []  # of each product: a, b, c, d, e, f, g, h
    of_kind: list[int] = []
    for kind in range(len(ks)):
        for c, d in _COLUMNS:
            e, f = (column for column in range(LARGEST) if column not in (c, d))
            minors = [
                [entry_of(kind, row, p), entry_of(kind, row + 1, q), entry_of(kind, row, q), entry_of(kind, row + 1, p)]
                for row, p, q in ((0, c, d), (2, e, f))
            ]
            if any(len(entries) in minor[:2] and len(entries) in minor[2:] for minor in minors):
                continue  # always 0
            if (c + d) % 2 == 0:  # the product's sign, −1^(1 + c + d)
                minors[0] = minors[0][2:] + minors[0][:2]
            factors.append(minors[0] + minors[1])
            of_kind.append(kind)
    table = torch.tensor(factors).view(-1, 2, 4).permute(2, 1, 0)  # (4, 2, P)

    by_entry = torch.zeros(len(edge) + 2, len(gram))
    for column, (first, second, opposite) in enumerate(gram[: len(entries)]):
        for row, weight in ((first, 1), (second, 1), (opposite, -1)):
            by_entry[row, column] += weight
    minus = torch.tensor([1.0, 1.0, -1.0, -1.0])[:, None, None].expand(table.shape)
    scale = torch.tensor([1 / (2 ** ks[kind] * factorial(ks[kind]) ** 2) for kind in of_kind], dtype=torch.float64)
    by_volume = torch.zeros(len(of_kind), len(ks), dtype=torch.float64)
    by_volume[range(len(of_kind)), of_kind] = scale
    others = table.flip(1)
    return _Tables(
        across=torch.tensor(across, dtype=torch.long, device=device).view(-1, 2).t().flip(0).flatten(),
        pulls=pulls.to(device, dtype),
        constants=torch.tensor([[0.0], [1.0]], device=device, dtype=dtype),
        gram=torch.tensor(gram, device=device).t().flatten(),
        factors=table.flatten().to(device),
        partners=others[[1, 0, 3, 2]].flatten().to(device),
        by_squared=(by_entry[: len(edge), others.flatten()] * minus.flatten()).to(device, dtype),
        scale=scale[:, None].to(device, dtype),
        by_volume=by_volume.to(device, dtype),
        products=[of_kind.count(kind) for kind in range(len(ks))],
    )
