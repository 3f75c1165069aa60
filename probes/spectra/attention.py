"""Attention of the last token of a prompt, and what it adds up, as the source of the lens takes both."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from modulant.backbones.opening import Backbone
from probes.attention.reading import eager
from probes.spectra.passes import as_read, run
from probes.spectra.texts import Text


class Last(NamedTuple):
    """Of one layer.

    Attributes:
        attention: (heads, T) of the text's last token; each row sums to 1.
        states: (T, D) the stream before the block.
    """

    attention: Tensor
    states: Tensor

    @property
    def contexts(self) -> Tensor:
        """(heads, D) states averaged by attention. No model forms them: heads average values."""
        return self.attention @ self.states


def some_layers(n_layers: int) -> list[int]:
    """First, middle and last: 0, 5 and 11 of twelve.

    >>> some_layers(12), some_layers(1)
    ([0, 5, 11], [0])
    """
    return sorted({0, (n_layers - 1) // 2, n_layers - 1})


def last_attention(backbone: Backbone, text: Text, layers: Sequence[int]) -> dict[int, Last]:
    """Attention of the last token that is not special, by layer; the model's own kernel is set back.

    For short texts: the attention of all layers is held.

    Raises:
        ValueError: the model gives none.
    """
    stack: Any = backbone.parts.stack
    last = int((~as_read(backbone, text).special).nonzero().flatten()[-1])
    with eager(stack), torch.inference_mode():
        output = run(backbone, text, output_attentions=True, output_hidden_states=True)
    if not output.attentions or len(output.attentions) != backbone.shape.n_layers:
        raise ValueError(f"the attention of {backbone.name!r} cannot be read")
    found = {}
    for layer in layers:
        attention = output.attentions[layer][0, :, last].float().cpu().clone()
        total = attention.sum(-1)
        assert bool((((total - 1).abs() < 1e-4) | ~total.isfinite()).all()), "attention must sum to 1"
        found[layer] = Last(attention, output.hidden_states[layer][0].float().cpu().clone())
    return found
