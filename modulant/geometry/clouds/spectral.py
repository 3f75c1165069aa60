"""From similarities to points: an embedding from eigenvectors, how well it reproduces them, and nearest neighbours.

The leading eigenvectors of a similarity matrix, each times the root of its eigenvalue, are the points whose inner
products come nearest to it (classical multidimensional scaling without centring; Eckart and Young's theorem).
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from modulant.geometry.statistics.correlation import pearson_from_sums

_ROWS_PER_BLOCK = 1024


def spectral_embedding(
    eigenvalues: Float[Tensor, "dims"], eigenvectors: Float[Tensor, "points dims"]
) -> Float[Tensor, "points dims"]:
    r"""Rows v_i ∘ √max(λ, 0), scaled to length 1. A row without any extent stays zero.

    Of two equal decompositions the signs of the eigenvectors may differ: here each one's largest component is positive.

    >>> spectral_embedding(torch.tensor([4.0, 1.0]), torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    tensor([[0., 1.],
            [1., 0.]])
    """
    largest = eigenvectors.abs().argmax(0, keepdim=True)
    signs = torch.where(eigenvectors.gather(0, largest) < 0, -1.0, 1.0)
    return F.normalize(eigenvectors * signs * eigenvalues.clamp_min(0).sqrt(), dim=-1) + 0.0  # no −0.


def reproduction(similarity: Float[Tensor, "points points"], points: Float[Tensor, "points dim"]) -> Float[Tensor, ""]:
    """Pearson's r, over pairs i < j, of the points' cosines with a symmetric `similarity`.

    Streamed in blocks of rows, sums in fp64. NaN where either does not vary.
    """
    unit = F.normalize(points.float(), dim=-1)
    sums = torch.zeros(6, dtype=torch.float64)
    for start in range(0, len(unit), _ROWS_PER_BLOCK):
        stop = start + _ROWS_PER_BLOCK
        cosines = (unit[start:stop] @ unit[start:].mT).double()
        wanted = similarity[start:stop, start:].double()
        later = torch.ones_like(cosines, dtype=torch.bool).triu(1)
        x, y = wanted[later], cosines[later]
        parts = (torch.ones_like(x).sum(), x.sum(), y.sum(), x @ x, y @ y, x @ y)
        sums += torch.stack(parts).cpu()
    return pearson_from_sums(*sums)


def mean_of_nearest(
    queries: Float[Tensor, "queries dim"],
    anchors: Float[Tensor, "anchors dim"],
    points: Float[Tensor, "anchors dims"],
    k: int,
    sharpness: float,
) -> Float[Tensor, "queries dims"]:
    """Each query's k nearest anchors by cosine, their `points` averaged by softmax(sharpness · cosine), length 1.

    Raises:
        ValueError: k below 1, or fewer anchors than k.
    """
    if not 1 <= k <= len(anchors):
        raise ValueError(f"mean_of_nearest: k is {k}; there are {len(anchors)} anchors, so it must be 1 to that")
    anchors = F.normalize(anchors, dim=-1)
    means = []
    for block in queries.split(_ROWS_PER_BLOCK):
        cosines, nearest = (F.normalize(block, dim=-1) @ anchors.mT).topk(k, dim=-1)
        weights = (sharpness * cosines).softmax(-1)
        means.append((weights.unsqueeze(-1) * points[nearest]).sum(1))
    return F.normalize(torch.cat(means), dim=-1) if means else points.new_zeros(0, points.shape[-1])
