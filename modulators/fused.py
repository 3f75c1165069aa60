"""LERP for inference: the projected targets of all tokens as one table, so that a lookup replaces a matrix product."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from modulators.base import Modulator
from modulators.lerp import LerpModulator, checked_token_ids, drawn_towards

_NO_TRAINING = "a fused LerpModulator cannot be trained: its table is not a parameter; train the unfused one"


class FusedLerp(Modulator):
    r"""h ← (1 − α_l) h + α_l T[token],   T = g Wᵀ, which takes V · D · 4 bytes.

    A snapshot of `modulator`: later changes of that do not affect it. It has no parameters; its state dict is that of
    `unfused`, the modulator it was made from, which is the one to save and train.

    Args:
        modulator: provides the current `g`, `W` and α.
    """

    table: Tensor
    _alphas: Tensor
    unfused: LerpModulator

    def __init__(self, modulator: LerpModulator) -> None:
        super().__init__(modulator.stream, modulator.init_args)
        # Not a submodule: moving this module or counting its parameters must not include the unfused one.
        object.__setattr__(self, "unfused", modulator)
        with torch.no_grad():
            table = F.linear(modulator.geometric_embed.weight, modulator.proj.weight)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("_alphas", modulator.alphas.detach().clone(), persistent=False)
        super().train(False)

    def _context(self, token_ids: Tensor | None) -> Tensor:
        return F.embedding(checked_token_ids(self.stream, token_ids), self.table)  # (..., D)

    def _modulate(self, residual: Tensor, alpha: Tensor, layer: int, context: Tensor) -> Tensor:
        return drawn_towards(context, residual, alpha)

    @property
    def alphas(self) -> Float[Tensor, "layers experts"]:
        return self._alphas

    @property
    def expert_names(self) -> tuple[str, ...]:
        return ("lerp",)

    @property
    def active_dims(self) -> Tensor:
        return torch.arange(self.stream.d_model, device=self.table.device)

    @property
    def short_name(self) -> str:
        return self.unfused.short_name

    def health_report(self) -> dict[str, float]:
        return self.unfused.health_report()

    def fuse(self) -> "FusedLerp":
        """Return itself."""
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the state dict of the unfused modulator."""
        return self.unfused.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        raise ValueError("a fused LerpModulator loads no state dict; load it into the unfused one, and fuse again")

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        raise ValueError(_NO_TRAINING)

    def train(self, mode: bool = True) -> "FusedLerp":
        """Raise in training mode."""
        if mode:
            raise ValueError(_NO_TRAINING)
        super().train(False)
        return self
