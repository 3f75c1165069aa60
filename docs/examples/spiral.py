"""A user-supplied modulator: before each block, rotates the stream in D/2 planes by learned angles.

h ← (1 − α_l) h + α_l · R(φ_l) h,    R turns each pair (h_i, h_{i + D/2}) by its own angle φ_{l,i}

python probe.py contract docs/examples/spiral.py
python train.py fit --config field.yaml --trust docs/examples/spiral.py --model.modulator spiral.Spiral
"""

import torch
from torch import Tensor, nn

from modulators import Modulator, ResidualStream
from modulators.base import at_least_fp32, logit, parameter_group


class Spiral(Modulator):
    """Blends the stream with a rotation of it. A rotation keeps the norm; the angles and α are learned."""

    def __init__(self, stream: ResidualStream, initial_alpha: float = 0.01, turn: float = 0.5) -> None:
        if stream.d_model % 2:
            raise ValueError(f"Spiral turns pairs of dimensions; the stream has {stream.d_model}")
        super().__init__(stream, {"initial_alpha": initial_alpha, "turn": turn})
        self.angles = nn.Parameter(torch.full((stream.n_layers, stream.d_model // 2), turn))
        self._register_alpha_logits(torch.full((stream.n_layers, 1), logit(initial_alpha)), learnable=True)

    def _modulate(self, residual: Tensor, alpha: Tensor, layer: int, token_ids: Tensor | None) -> Tensor:
        stream = at_least_fp32(residual)
        x, y = stream.chunk(2, dim=-1)
        cos, sin = self.angles[layer].cos().to(stream.dtype), self.angles[layer].sin().to(stream.dtype)
        turned = torch.cat([cos * x - sin * y, sin * x + cos * y], dim=-1)
        return torch.lerp(stream, turned, alpha.to(stream.dtype)).to(residual.dtype)

    @property
    def alphas(self) -> Tensor:
        return at_least_fp32(self.alpha_logits).sigmoid()

    @property
    def expert_names(self) -> tuple[str, ...]:
        return ("spiral",)

    @property
    def active_dims(self) -> Tensor:
        return torch.arange(self.stream.d_model, device=self.angles.device)

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, object]]:
        return [
            *parameter_group("angles", [self.angles], lr, weight_decay),
            *parameter_group("alphas", [self.alpha_logits], lr, 0.0),
        ]
