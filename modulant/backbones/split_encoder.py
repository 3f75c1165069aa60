"""An encoder in two: the blocks below the lowest one that anything is attached to, and the rest.

What block m reads does not depend on what is trained when the blocks below it are left alone. Both halves are copies of
the encoder that share its blocks, weights and hooks, and differ in their list of blocks: each runs Hugging Face's own
forward, the encoder itself is as it was, and of a half that is not run no block is called. Run one after the other they
do the same operations as the encoder.
"""

import copy
from typing import Any

from torch import Tensor, nn

# Under this name the upper half is told the ids of the tokens whose hidden states it reads.
TOKEN_IDS = "token_ids_below"


def lower_half(encoder: Any, m: int) -> Any:
    """Blocks 0 … m − 1: from token ids to the hidden states that block m reads, which it returns as the last ones."""
    return _with_blocks(encoder, list(encoder.block[:m]), final_layer_norm=nn.Identity())


def upper_half(encoder: Any, m: int) -> Any:
    """Blocks m … : from the hidden states that block m reads, given as ``inputs_embeds``, to the encoder's last."""
    blocks = list(encoder.block[m:])
    if not _has_bias(blocks[0]):  # T5 keeps the relative position bias in block 0 alone; each block of UMT5 has its own
        blocks.insert(0, _PositionBias(encoder.block[0]))
    return _with_blocks(encoder, blocks)


def _with_blocks(encoder: Any, blocks: list[nn.Module], **others: nn.Module) -> Any:
    half = copy.copy(encoder)  # its dicts of hooks and parameters are the encoder's own
    half._modules = {**encoder._modules, "block": nn.ModuleList(blocks), **others}
    return half


def _has_bias(block: Any) -> bool:
    return bool(block.layer[0].SelfAttention.has_relative_attention_bias)


class _PositionBias(nn.Module):
    """Stands where block 0 stood, and does only what the later blocks need of it: the relative position bias."""

    def __init__(self, first: Any) -> None:
        super().__init__()
        self._attention = first.layer[0].SelfAttention

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, None]:
        length = hidden_states.shape[1]
        return hidden_states, self._attention.compute_bias(length, length, device=hidden_states.device), None
