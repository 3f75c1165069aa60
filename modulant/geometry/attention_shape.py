"""Shape of attention: entropies with and without one key, positions, and how much heads differ; and attention that
means nothing, to compare with.

Weights are (…, queries, keys), each row a distribution over the keys that its query may see. `visible` is (queries,
keys). What is undefined (one key to look at, one head) is NaN.
"""

import math

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

Weights = Float[Tensor, "*batch queries keys"]
Visible = Bool[Tensor, "queries keys"]
PerQuery = Float[Tensor, "*batch queries"]


def visible_keys(queries: int, causal: bool, window: int | None = None) -> Visible:
    """Which keys each of as many queries may see.

    Args:
        queries: number of tokens.
        causal: only keys up to the query.
        window: of a causal layer the number of keys, the query's own among them; of another one the distance to either
            side. None: all.

    >>> visible_keys(3, causal=True, window=2).int().tolist()
    [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    place = torch.arange(queries)
    back = place[:, None] - place
    seen = back >= 0 if causal else torch.ones_like(back, dtype=torch.bool)
    if window is not None:
        seen &= back < window if causal else back.abs() <= window
    return seen


def entropy(weights: Weights) -> PerQuery:
    """h = −Σ_j a_j ln a_j, in nat.

    >>> entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    tensor([0.6931, 0.0000])
    """
    return -torch.xlogy(weights, weights).sum(-1) + 0.0  # without which it is −0


def normalised_entropy(weights: Weights, visible: Visible) -> PerQuery:
    """ĥ = h / ln n, n the keys that a query may see: 1 for uniform attention; NaN where n < 2."""
    return entropy(weights) / _log(visible.sum(-1), weights)


def entropy_without(weights: Weights, key: int) -> PerQuery:
    """h′: entropy over the other keys, renormalised, in nat; NaN where they have no weight.

    With s = a_key and h₂ the entropy of (s, 1 − s), h = h₂ + (1 − s) h′.
    """
    rest = _without(weights, key)
    total = rest.sum(-1)
    # −Σ (a/r) ln (a/r) = ln r + h(a)/r, r the weight of the rest.
    return torch.where(total > 0, total.log() + entropy(rest) / total, torch.nan).clamp_min(0)


def normalised_entropy_without(weights: Weights, visible: Visible, key: int) -> PerQuery:
    """ĥ′ = h′ / ln n′, n′ the other keys that a query may see; NaN where n′ < 2."""
    return entropy_without(weights, key) / _log(_without(visible, key).sum(-1), weights)


def circular_centroid(weights: Weights) -> Complex[Tensor, "*batch queries"]:
    """Σ_j a_j exp(2πij/T) over T keys put on a circle: its length is R, its angle the phase.

    Last and first key are neighbours on the circle, and half on either has R near 1. Of uniform attention over the
    first i + 1 keys, R = |sin(π(i+1)/T)| / ((i+1) sin(π/T)).
    """
    keys = weights.shape[-1]
    angle = 2 * math.pi / keys * torch.arange(keys, device=weights.device, dtype=weights.dtype)
    return torch.complex(weights @ angle.cos(), weights @ angle.sin())


def phase_synchrony(centroid: Complex[Tensor, "*batch heads queries"]) -> PerQuery:
    """|mean_h exp(iφ_h)| of the phases of heads: 1 where all agree, as they do where attention is uniform."""
    return torch.polar(torch.ones_like(centroid.abs()), centroid.angle()).mean(-2).abs()


def relative_distance(weights: Weights, visible: Visible, apart: Float[Tensor, "queries keys"]) -> PerQuery:
    """Σ_j a_ij d_ij / max_j d_ij over the keys that a query may see; NaN where that is 0.

    With d_ij = |i − j| it is ⟨i − j⟩ / i of a causal query.
    """
    largest = torch.where(visible, apart, 0.0).amax(-1)
    return (weights * apart).sum(-1) / torch.where(largest > 0, largest, torch.nan)


def relative_spread(weights: Weights, visible: Visible) -> PerQuery:
    """√(Σ_j a_j j² − (Σ_j a_j j)²) / (n − 1), n keys in a row that a query may see; NaN where n < 2.

    The sd of the position: 0 on one key, ½ with half on either end, √((n + 1) / (12 (n − 1))) of uniform attention.

    >>> relative_spread(torch.tensor([[0.5, 0.0, 0.5]]), torch.ones(1, 3, dtype=torch.bool))
    tensor([0.5000])
    """
    keys = visible.shape[-1]
    place = torch.arange(keys, device=weights.device, dtype=weights.dtype) / max(keys - 1, 1)
    variance = (weights @ place.square() - (weights @ place).square()).clamp_min(0)
    count = visible.sum(-1).to(weights.device, weights.dtype)
    return variance.sqrt() * torch.where(count > 1, (keys - 1) / (count - 1), torch.nan)


def head_divergence(
    weights: Float[Tensor, "*batch heads queries keys"], visible: Visible
) -> Float[Tensor, "*batch heads queries"]:
    """KL(a_h ‖ ā) / ln min(H, n) of each head, ā the mean over H heads.

    Its mean over heads is their Jensen–Shannon divergence as a share of the largest one: 0 where all heads attend
    alike, 1 where no two have a key in common. NaN for one head or one key.
    """
    mean = weights.mean(-3, keepdim=True)
    # Σ a ln(a/ā): where ā is 0, a is.
    divergence = torch.xlogy(weights, weights / torch.where(mean > 0, mean, 1.0)).sum(-1)
    return divergence / _log(visible.sum(-1).clamp_max(weights.shape[-3]), weights)


def uniform_attention(visible: Visible, dtype: torch.dtype = torch.float64) -> Float[Tensor, "queries keys"]:
    """The same weight on each key that a query may see."""
    seen = visible.to(dtype)
    return seen / seen.sum(-1, keepdim=True)


def dirichlet_attention(
    visible: Visible, batch: tuple[int, ...], generator: torch.Generator
) -> Float[Tensor, "*batch queries keys"]:
    """Weights drawn evenly from all distributions over the visible keys (Dirichlet(1)), in fp64 on the CPU."""
    drawn = torch.empty((*batch, *visible.shape), dtype=torch.float64).exponential_(generator=generator)
    drawn *= visible.cpu()
    return drawn / drawn.sum(-1, keepdim=True)


def with_sink(weights: Weights, visible: Visible, key: int, share: float) -> Weights:
    """Weights of which `share` goes to one key, and the rest as before; a query that may not see the key keeps its own.

    Args:
        share: from 0 to 1.
    """
    moved = (1 - share) * weights
    moved[..., key] += share
    return torch.where(visible[:, key, None].to(weights.device), moved, weights)


def permuted_keys(weights: Weights, visible: Visible, key: int, generator: torch.Generator) -> Weights:
    """Weights of each query dealt anew to the keys that it may see, but for one key, which keeps its own.

    Entropies with and without that key stay; where the rest points is lost. Drawn on the CPU: the same on each device.
    """
    movable = _without(visible, key)
    keys = torch.arange(weights.shape[-1], device=weights.device)
    stay = torch.where(movable, 0.0, 2.0 + keys).to(weights.device)  # behind all others, in their own order
    noise = torch.rand(weights.shape, generator=generator, dtype=torch.float64).to(weights.device, torch.float32)
    places = (keys / len(keys) + stay).argsort(-1).expand(weights.shape)
    return torch.empty_like(weights).scatter_(-1, places, weights.gather(-1, (noise + stay).argsort(-1)))


def _without(weights: Tensor, key: int) -> Tensor:
    """The same with 0 at one key."""
    rest = weights.clone()
    rest[..., key] = 0
    return rest


def _log(counts: Tensor, like: Tensor) -> Tensor:
    """ln n; NaN for n < 2."""
    return torch.where(counts > 1, counts.to(like.device, like.dtype).log(), torch.nan)
