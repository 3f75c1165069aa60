"""LERP for inference: its targets for every token, projected once, so that a lookup takes the place of a product."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from modulators.base import Modulator
from modulators.lerp import LerpModulator, checked_token_ids, drawn_towards

_NO_TRAINING = "a fused LerpModulator cannot be trained: its table does not learn; train the unfused one"


class FusedLerp(Modulator):
    r"""h ← (1 − α_l) h + α_l T[token],   T = g Wᵀ, which takes V · D · 4 bytes.

    A snapshot: what is done to the modulator afterwards does not reach it. It has no parameters of its own, and its
    state dict is that of the modulator it was made of, which is in `unfused`: that one is saved and trained.

    Args:
        modulator: whose `g`, `W` and α are taken as they are now.
    """

    table: Tensor
    _alphas: Tensor
    unfused: LerpModulator

    def __init__(self, modulator: LerpModulator) -> None:
        super().__init__(modulator.stream, modulator.init_args)
        # Not a submodule: moving or counting this one should not move or count that one.
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

    def fuse(self) -> "FusedLerp":
        """Is fused."""
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The unfused tensors."""
        return self.unfused.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        raise ValueError("a fused LerpModulator loads nothing: load into the unfused one, and fuse it again")

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        raise ValueError(_NO_TRAINING)

    def train(self, mode: bool = True) -> "FusedLerp":
        """Refuses training mode."""
        if mode:
            raise ValueError(_NO_TRAINING)
        super().train(False)
        return self
