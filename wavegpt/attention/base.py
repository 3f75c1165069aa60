"""What all kinds of attention share: features of queries and keys, which hold positions, and values mixed by them.

A cache holds the keys' features and the values, or a state.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from wavegpt.attention.cache import KeyCache, LayerCache, StateCache
from wavegpt.attention.kernels import EPSILON, Features, weighted
from wavegpt.attention.linear import causal_linear, read_state
from wavegpt.attention.places import Places
from wavegpt.config import WaveConfig
from wavegpt.observed import Observed


class Attention(nn.Module):
    """Base: y = out(mix(features(x), value(x))); a subclass makes features and mixes.

    Attributes:
        linear: features of queries and keys are those of a linear kernel, so that a state is enough.
    """

    def __init__(self, config: WaveConfig) -> None:
        super().__init__()
        self.about, self.heads = config.attention, config.heads
        self.h, self.W = config.head_dim, config.attention.waves_of(config.head_dim)
        self.linear = config.attention.linear
        self.value = nn.Linear(config.d_model, config.d_model, bias=False)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)
        if self.about.temperature == "per_head" and self.about.normalise == "softmax":
            self.log_temperature = nn.Parameter(torch.zeros(config.heads))

    def forward(
        self,
        x: Float[Tensor, "B T d"],
        places: Places,
        cache: LayerCache | None = None,
        observed: Observed | None = None,
    ) -> Float[Tensor, "B T d"]:
        """Attend to the tokens before, in x and in the cache, which x's tokens are added to."""
        query, key = self.features(x, places, cache, observed)
        if observed is not None and observed.with_features:
            observed.features.append((query, key))
        value = self._split(self.value(x))
        if self.linear:
            y = self._mix_linear(query[0], key[0], value, places, cache)
        else:
            if isinstance(cache, KeyCache):
                *kept, value = cache.append((*key, value))
                key = tuple(kept)
            y = self.mix(query, key, value, places)
        return self.out(y.to(x.dtype).transpose(1, 2).flatten(2))

    def features(
        self, x: Tensor, places: Places, cache: LayerCache | None, observed: Observed | None
    ) -> tuple[Features, Features]:
        """Of queries and keys, (B, H, T, ·) each."""
        raise NotImplementedError

    def mix(self, query: Features, key: Features, value: Tensor, places: Places) -> Tensor:
        """Values by weights."""
        raise NotImplementedError

    def initialise(self) -> None:
        """Set what does not start as N(0, 0.02²) or 0."""

    def cache(self, window: int) -> LayerCache:
        """An empty cache."""
        return StateCache() if self.linear else KeyCache(window)

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, H·n) → (B, H, T, n)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _scale(self) -> float | Tensor:
        """1/√h times the heads' temperatures, (H, 1, 1)."""
        if not hasattr(self, "log_temperature"):
            return self.h**-0.5
        return (self.log_temperature.exp() * self.h**-0.5)[:, None, None]

    def _normalised(self, sums: Tensor, total: Tensor, places: Places) -> Tensor:
        """Weighted sums over the sum of weights."""
        return sums / (total + EPSILON)

    def _mix_linear(
        self, query: Tensor, key: Tensor, value: Tensor, places: Places, cache: LayerCache | None
    ) -> Tensor:
        """By the sums of a linear kernel, of the tokens in the state too."""
        mine = places.in_last_segment()
        state = cache.state if isinstance(cache, StateCache) else None
        if mine is None or state is not None:
            sums, total = causal_linear(query, key, value)
        else:  # segments: masked, quadratic
            allowed = places.allowed(key.shape[-2])
            ones = F.pad(value, (0, 1), value=1.0)
            out = weighted(query @ key.mT, ones, allowed, "none")
            sums, total = out[..., :-1], out[..., -1:]
        if state is not None:
            before = read_state(state, query.to(state.dtype))
            sums, total = sums + before[0], total + before[1]
        if isinstance(cache, StateCache):
            cache.add(key if mine is None else key * mine, value)
        return self._normalised(sums, total, places)
