"""A pre-norm block, the same for all arms: x + attention(norm x), then x + mlp(norm x)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from wavegpt.attention.base import Attention
from wavegpt.attention.cache import LayerCache
from wavegpt.attention.dot_product import Cosine, DotProduct
from wavegpt.attention.phased import Interference, PureWave
from wavegpt.attention.places import Places
from wavegpt.config import WaveConfig
from wavegpt.embedding import norm_of
from wavegpt.observed import Observed


def attention_of(config: WaveConfig) -> Attention:
    """The attention of a configuration."""
    kinds: dict[str, type[Attention]] = {
        "rope": DotProduct, "nope": DotProduct, "cosine": Cosine, "interference": Interference, "pure_wave": PureWave,
    }  # fmt: skip
    return kinds[config.attention.kind](config)


class Mlp(nn.Module):
    """down(act(up(x))), act = gelu, or gelu(h) + 0.1 sin h."""

    def __init__(self, config: WaveConfig) -> None:
        super().__init__()
        hidden = max(round(config.mlp.expansion * config.d_model), 1)
        self.sine = config.mlp.act == "gelu_sin"
        self.up = nn.Linear(config.d_model, hidden)
        self.down = nn.Linear(hidden, config.d_model)

    def forward(self, x: Float[Tensor, "B T d"]) -> Float[Tensor, "B T d"]:
        hidden = self.up(x)
        active = F.gelu(hidden)
        return self.down(active + 0.1 * hidden.sin() if self.sine else active)


class Block(nn.Module):
    """Attention and MLP on the residual stream."""

    def __init__(self, config: WaveConfig) -> None:
        super().__init__()
        self.attention_norm, self.attention = norm_of(config), attention_of(config)
        self.mlp_norm, self.mlp = norm_of(config), Mlp(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Float[Tensor, "B T d"],
        places: Places,
        cache: LayerCache | None = None,
        observed: Observed | None = None,
    ) -> Float[Tensor, "B T d"]:
        x = x + self.dropout(self.attention(self.attention_norm(x), places, cache, observed))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))
