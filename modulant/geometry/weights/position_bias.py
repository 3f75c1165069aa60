r"""Biases by relative position: what one learned value for each bucket of distances says about a head.

A bucket holds all distances that share a value, so buckets are what is ranked and permuted; means and entropies are
over the distances themselves. Distances are Δ = position of the key − position of the query: left of the query below 0.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

NAMES = ("spearman_left", "spearman_right", "asymmetry", "entropy", "near")


def bucket_spans(buckets: Int[Tensor, "distances"], distances: Int[Tensor, "distances"], n: int) -> Int[Tensor, "n 2"]:
    """Of each of n buckets, its distance nearest to 0, and how many of the distances it holds (0: it is never used).

    >>> bucket_spans(torch.tensor([1, 1, 0]), torch.tensor([-2, -1, 0]), 3)
    tensor([[ 0,  1],
            [-1,  2],
            [ 0,  0]])
    """
    spans = torch.zeros(n, 2, dtype=torch.int64)
    for bucket in buckets.unique().tolist():
        inside = distances[buckets == bucket]
        spans[bucket] = torch.stack((inside[inside.abs().argmin()], torch.tensor(len(inside))))
    return spans


def bias_figures(
    bias: Float[Tensor, "*heads used"], nearest: Int[Tensor, "used"], counts: Int[Tensor, "used"]
) -> dict[str, Float[Tensor, "*heads"]]:
    r"""Figures of the curves of heads, of their used buckets.

    Args:
        bias: a value a bucket.
        nearest: its distance nearest to 0.
        counts: how many distances it holds.

    Returns:
        ``spearman_left`` and ``spearman_right``: of b with −\|Δ\| over the buckets of one side, 1 where it falls with
        the distance; ``asymmetry``: mean over distances to the left minus that to the right, unit nat; ``entropy``: of
        softmax(b) over distances, as a share of its maximum; ``near``: 1 where the largest value is at \|Δ\| ≤ 1, else
        0. NaN where a side has fewer than two buckets.

    >>> bias_figures(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([0, -1, -2]), torch.ones(3).long())["spearman_left"]
    tensor(1., dtype=torch.float64)
    """
    bias, weights = bias.double(), counts.double()
    nan = torch.full_like(bias[..., 0], torch.nan)
    left, right = nearest < 0, nearest > 0
    log_p = bias - (bias + weights.log()).logsumexp(-1, keepdim=True)
    entropy = -(weights * log_p.exp() * log_p).sum(-1) / weights.sum().log()
    sides = {}
    for name, side in (("spearman_left", left), ("spearman_right", right)):
        sides[name] = _rank_correlation(bias[..., side], -nearest[side].abs()) if int(side.sum()) > 1 else nan
    both = bool(left.any()) and bool(right.any())
    means = [(bias[..., side] * weights[side]).sum(-1) / weights[side].sum() for side in (left, right)]
    return {
        **sides,
        "asymmetry": means[0] - means[1] if both else nan,
        "entropy": entropy,
        "near": (nearest[bias.argmax(-1)].abs() <= 1).double(),
    }


def permuted_figures(
    bias: Float[Tensor, "heads used"],
    nearest: Int[Tensor, "used"],
    counts: Int[Tensor, "used"],
    permutations: int,
    seed: int,
) -> dict[str, Float[Tensor, "permutations"]]:
    """Means over heads of `bias_figures`, with the values of each head permuted over its buckets: their null."""
    generator = torch.Generator().manual_seed(seed)
    parts: dict[str, list[Tensor]] = {name: [] for name in NAMES}
    for start in range(0, permutations, step := 500):
        n = min(step, permutations - start)
        orders = torch.rand(n, *bias.shape, generator=generator).argsort(-1)
        figures = bias_figures(bias.expand(n, *bias.shape).gather(-1, orders), nearest, counts)
        for name, values in figures.items():
            parts[name].append(values.mean(-1))
    return {name: torch.cat(values) for name, values in parts.items()}


def _rank_correlation(values: Float[Tensor, "*heads n"], by: Int[Tensor, "n"]) -> Float[Tensor, "*heads"]:
    """Spearman's coefficient of each head; equal values share a rank."""
    ranks, wanted = ((x.unsqueeze(-1) - x.unsqueeze(-2)).sign().sum(-1).double() for x in (values, by))  # mean 0
    return (ranks * wanted).sum(-1) / (ranks.square().sum(-1) * wanted.square().sum()).sqrt()
