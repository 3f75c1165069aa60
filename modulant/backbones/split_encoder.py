"""Split an encoder at its lowest modulated block m.

The input of block m does not depend on trained parameters. The two parts are shallow copies of the encoder: they share
its modules, weights and hooks, and differ in their list of blocks. Each runs Hugging Face's own forward, and the
encoder itself is not changed. Run one after the other, they perform the same operations as the encoder.
"""

import copy
from typing import Any

from torch import Tensor, nn

# Keyword argument by which the upper part gets the ids of the tokens whose hidden states it reads.
TOKEN_IDS = "token_ids_below"


def lower_encoder(encoder: Any, m: int) -> Any:
    """Blocks 0 … m − 1: from token ids to the input of block m, returned as ``last_hidden_state``."""
    return _with_blocks(encoder, list(encoder.block[:m]), final_layer_norm=nn.Identity())


def upper_encoder(encoder: Any, m: int) -> Any:
    """Blocks m … : from the input of block m, given as ``inputs_embeds``, to the encoder's last hidden state."""
    blocks = list(encoder.block[m:])
    if not _has_bias(blocks[0]):  # T5 has the relative position bias only in block 0; every block of UMT5 has its own
        blocks.insert(0, _PositionBias(encoder.block[0]))
    return _with_blocks(encoder, blocks)


def _with_blocks(encoder: Any, blocks: list[nn.Module], **others: nn.Module) -> Any:
    part = copy.copy(encoder)  # shares the encoder's dicts of hooks and parameters
    part._modules = {**encoder._modules, "block": nn.ModuleList(blocks), **others}
    return part


def _has_bias(block: Any) -> bool:
    return bool(block.layer[0].SelfAttention.has_relative_attention_bias)


class _PositionBias(nn.Module):
    """Replaces block 0: passes hidden states through and computes the relative position bias for the later blocks."""

    def __init__(self, first: Any) -> None:
        super().__init__()
        self._attention = first.layer[0].SelfAttention

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, None]:
        length = hidden_states.shape[1]
        return hidden_states, self._attention.compute_bias(length, length, device=hidden_states.device), None
