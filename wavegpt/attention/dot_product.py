"""The controls of interference attention: dot products with rotary positions or none, and cosines."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavegpt.attention.base import Attention
from wavegpt.attention.cache import LayerCache
from wavegpt.attention.kernels import Features, softmax_attention, weighted
from wavegpt.attention.phases import rotate
from wavegpt.attention.places import Places
from wavegpt.config import WaveConfig
from wavegpt.observed import Observed


class DotProduct(Attention):
    """softmax(q · k / √h), with rotary positions (rope) or none (nope)."""

    def __init__(self, config: WaveConfig) -> None:
        super().__init__(config)
        self.query = nn.Linear(config.d_model, config.d_model, bias=self.about.locality)
        self.key = nn.Linear(config.d_model, config.d_model, bias=self.about.locality)

    def initialise(self) -> None:
        """The locality prior: q = k = √2 A along the cosines, so that logits start as those of interference."""
        if self.about.locality:
            half = torch.zeros(self.heads, self.h)
            half[:, : self.h // 2] = math.sqrt(2) * self.about.amp_init
            for projection in (self.query, self.key):
                projection.bias.data.copy_(half.flatten())

    def features(
        self, x: Tensor, places: Places, cache: LayerCache | None, observed: Observed | None
    ) -> tuple[Features, Features]:
        q, k = self._split(self.query(x)), self._split(self.key(x))
        if self.about.kind == "rope":
            cos, sin = places.cos_sin(self.h // 2, self.about.rope_base, q.dtype)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        return (q * self._scale(),), (k,)

    def mix(self, query: Features, key: Features, value: Tensor, places: Places) -> Tensor:
        return softmax_attention(query[0], key[0], value, places.allowed(value.shape[-2]))


class Cosine(Attention):
    """softmax of the cosine of W features with learned offsets, times a temperature: no positions.

    `temperature: per_head` starts at √h; `shared` divides by one number that starts at √W, the source's.
    """

    def __init__(self, config: WaveConfig) -> None:
        super().__init__(config)
        wide = config.heads * self.W
        self.query = nn.Linear(config.d_model, wide, bias=False)
        self.key = nn.Linear(config.d_model, wide, bias=False)
        self.query_phase = nn.Parameter(torch.zeros(config.heads, 1, self.W))
        self.key_phase = nn.Parameter(torch.zeros(config.heads, 1, self.W))
        if self.about.temperature == "shared":
            self.temperature = nn.Parameter(torch.tensor(self.W**0.5))

    def features(
        self, x: Tensor, places: Places, cache: LayerCache | None, observed: Observed | None
    ) -> tuple[Features, Features]:
        q = F.normalize(self._split(self.query(x)) + self.query_phase, dim=-1)
        k = F.normalize(self._split(self.key(x)) + self.key_phase, dim=-1)
        return (q * self._scale(),), (k,)

    def _scale(self) -> float | Tensor:
        if self.about.temperature == "shared":
            return 1 / self.temperature
        if self.about.temperature == "none":
            return self.W**-0.5
        return (self.log_temperature.exp() * self.h**0.5)[:, None, None]

    def mix(self, query: Features, key: Features, value: Tensor, places: Places) -> Tensor:
        if query[0].shape[-1] == value.shape[-1]:
            return softmax_attention(query[0], key[0], value, places.allowed(value.shape[-2]))
        return weighted(query[0] @ key[0].mT, value, places.allowed(value.shape[-2]), "softmax")
