r"""How alike are two clouds whose rows belong together, with no alignment: CKA, similarity of similarities, neighbours.

All of it is read from n × n matrices of pairs, symmetric, in fp64: n should be some thousands at most. Replicates of a
bootstrap weight row i by w_i and a pair of distinct rows by w_i w_j; a row beside its own copy is no pair.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Num
from torch import Tensor

from modulant.geometry.statistics.correlation import centred_ranks, pearson_from_sums

_ROWS = 1024  # of a matrix of cosines at once

Pairs = Float[Tensor, "points points"]
Weights = Num[Tensor, "replicates points"]


def gram(points: Float[Tensor, "points dim"]) -> Pairs:
    """Inner products of the centred points. Unit: length²."""
    centred = points.double() - points.double().mean(0)
    return centred @ centred.mT


def cosines(points: Float[Tensor, "points dim"]) -> Pairs:
    """Cosines of all pairs; a row of zeros has the cosine 0 with every other. Shift-dependent: centre first."""
    unit = F.normalize(points.double(), dim=-1)
    return unit @ unit.mT


def unbiased_hsic(k: Pairs, l: Pairs, weights: Weights | None = None) -> Float[Tensor, "replicates"]:
    r"""HSIC₁ of two Gram matrices (Song and others, 2012), unbiased for any n of at least 4; 0 of independent rows.

    Means over distinct rows of K_ij L_ij, of K_ij L_qr, and of K_ij L_iq:

        HSIC₁ = E K_ij L_ij + E K_ij L_qr − 2 E K_ij L_iq

    With weights w, the mean of a tuple counts w_i w_j …: of integers, those of a cloud in which row i stands w_i times,
    without pairs of copies.

    Returns:
        One value a replicate; one without weights.
    """
    k, l = _without_diagonal(k), _without_diagonal(l)
    w = k.new_ones(1, len(k)) if weights is None else weights.to(k)
    s1, s2, s3, s4 = ((w**power).sum(1) for power in (1, 2, 3, 4))
    by_k, by_l, product = w @ k, w @ l, k * l
    pairs = (w @ product * w).sum(1)
    squared = (w**2 @ product * w**2).sum(1)
    triples = (w * by_k * by_l).sum(1) - (w**2 @ product * w).sum(1)
    quadruples = (w * by_k).sum(1) * (w * by_l).sum(1) - 4 * (w**2 * by_k * by_l).sum(1) + 2 * squared
    n2, n3 = s1**2 - s2, s1**3 - 3 * s1 * s2 + 2 * s3
    n4 = s1**4 - 6 * s1**2 * s2 + 3 * s2**2 + 8 * s1 * s3 - 6 * s4
    return pairs / n2 + quadruples / n4 - 2 * triples / n3


def unbiased_cka(k: Pairs, l: Pairs, weights: Weights | None = None) -> Float[Tensor, "replicates"]:
    """HSIC₁(K, L) / √(HSIC₁(K, K) HSIC₁(L, L)) of two Gram matrices: 1 of clouds that are the same up to rotation.

    0 on average of independent rows, whatever their number and dimensions; NaN where a cloud has no spread.

    Returns:
        One value a replicate; one without weights.
    """
    return unbiased_hsic(k, l, weights) / _root(unbiased_hsic(k, k, weights), unbiased_hsic(l, l, weights))


def biased_cka(k: Pairs, l: Pairs) -> Float[Tensor, ""]:
    """⟨HKH, HLH⟩ / (‖HKH‖ ‖HLH‖), H centring: what is usually printed. Above 0 of independent rows, more so for few.

    About √(P Q) / n of n independent rows with the participation ratios P and Q.
    """
    k, l = _double_centred(k), _double_centred(l)
    return (k * l).sum() / _root((k * k).sum(), (l * l).sum())


def permuted_cka(k: Pairs, l: Pairs, permutations: int, seed: int) -> Float[Tensor, "permutations 2"]:
    """`unbiased_cka` and `biased_cka` with the rows of L permuted: of clouds whose rows do not belong together."""
    generator = torch.Generator().manual_seed(seed)
    whole = _root(unbiased_hsic(k, k), unbiased_hsic(l, l))
    centred_k, centred_l = _double_centred(k), _double_centred(l)
    centred_whole = _root(centred_k.square().sum(), centred_l.square().sum())
    found = []
    for _ in range(permutations):
        order = torch.randperm(len(l), generator=generator).to(l.device)
        unbiased = unbiased_hsic(k, l[order][:, order]) / whole
        biased = (centred_k * centred_l[order][:, order]).sum() / centred_whole
        found.append(torch.stack([unbiased[0], biased]))
    return torch.stack(found)


def pair_ranks(values: Pairs) -> Pairs:
    """Centred mid-ranks of the pairs i < j, as a symmetric matrix with a diagonal of zeros."""
    i, j = torch.triu_indices(len(values), len(values), 1, device=values.device)
    ranks = torch.zeros_like(values, dtype=torch.float64)
    ranks[i, j] = centred_ranks(values[i, j])
    return ranks + ranks.mT


def pair_correlation(x: Pairs, y: Pairs, weights: Weights | None = None) -> Float[Tensor, "replicates"]:
    """Pearson's r over pairs of distinct rows of two symmetric matrices; of `pair_ranks`, Spearman's ρ.

    Replicates of ρ keep the ranks that the pairs have among all. NaN where nothing varies.

    Returns:
        One value a replicate; one without weights.
    """
    x, y = _without_diagonal(x), _without_diagonal(y)
    w = x.new_ones(1, len(x)) if weights is None else weights.to(x)
    pairs = w.sum(1).square() - w.square().sum(1)
    sx, sy, xx, yy, xy = ((w @ values * w).sum(1) for values in (x, y, x * x, y * y, x * y))
    return pearson_from_sums(pairs, sx, sy, xx, yy, xy)


def nearest_neighbours(points: Float[Tensor, "points dim"], k: int) -> Bool[Tensor, "points points"]:
    """Whether row j is one of the k nearest of row i, by cosine.

    Raises:
        ValueError: k below 1, or fewer other rows than that.
    """
    n = len(points)
    if not 1 <= k < n:
        raise ValueError(f"nearest_neighbours: k is {k}; {n} points have 1 to {n - 1} neighbours")
    unit = F.normalize(points.double(), dim=-1)
    found = torch.zeros(n, n, dtype=torch.bool, device=points.device)
    for start in range(0, n, _ROWS):
        near = unit[start : start + _ROWS] @ unit.mT
        near.diagonal(start).fill_(-torch.inf)
        found[start : start + _ROWS].scatter_(1, near.topk(k).indices, True)
    return found


def _without_diagonal(matrix: Tensor) -> Tensor:
    return matrix.double() - torch.diag(matrix.double().diagonal())


def _double_centred(matrix: Tensor) -> Tensor:
    matrix = matrix.double()
    return matrix - matrix.mean(0) - matrix.mean(1, keepdim=True) + matrix.mean()


def _root(a: Tensor, b: Tensor) -> Tensor:
    """√(ab); NaN where one of them is not positive."""
    return torch.where((a > 0) & (b > 0), a.clamp_min(0).sqrt() * b.clamp_min(0).sqrt(), torch.nan)
