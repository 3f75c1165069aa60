"""The logit lens: what a model's head makes of the stream after each layer, at the last token.

The head was trained on the last layer alone; what it makes of early ones is not what these hold.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from modulant.backbones.families import Parts
from modulant.backbones.families.base import at_path
from modulant.backbones.opening import Backbone
from probes.attention.reading import decoder_of


@dataclass(frozen=True, eq=False)
class Seen:
    """What the head makes of a batch, before the first layer and after each: (B, L + 1).

    Attributes:
        entropy: of the next token, in nat.
        divergence: KL(last ‖ layer), in nat.
        rank: of the token that is last the likeliest, from 1.
        commit: (B,) the number of layers after which that token is the likeliest and stays so.
        top: (B,) its probability after the last layer.
    """

    entropy: Tensor
    divergence: Tensor
    rank: Tensor
    commit: Tensor
    top: Tensor


class Lens:
    """Head and final norm of the stack that makes next tokens; use `of`."""

    def __init__(self, backbone: Backbone, parts: Parts):
        self.backbone = backbone
        self.blocks = parts.blocks
        self.norm: Any = at_path(parts.stack, cast(str, parts.family.final_norm))
        config = backbone.model.config
        scaled = getattr(config, "scale_decoder_outputs", False)
        if config.model_type == "umt5":
            scaled = config.tie_word_embeddings
        self.scale = parts.shape.d_model**-0.5 if scaled else 1.0
        self.cap: float | None = getattr(config, "final_logit_softcapping", None)

    @classmethod
    def of(cls, backbone: Backbone) -> "Lens | None":
        """None for a model that makes no next token, or has no head."""
        parts = decoder_of(backbone) or backbone.parts
        makes_tokens = parts.family.causal and {"lm", "seq2seq"} & set(parts.family.heads)
        return cls(backbone, parts) if makes_tokens and backbone.head is not None else None

    def logits(self, state: Tensor) -> Tensor:
        """(B, V) of states (B, D) before the final norm, as the model's own head makes them of the last ones."""
        logits = cast(Tensor, self.backbone.head(self.norm(state) * self.scale)).float()
        return logits if self.cap is None else self.cap * (logits / self.cap).tanh()

    @contextmanager
    def stream(self) -> Iterator[list[Tensor]]:
        """Context in which a forward pass leaves the stream at its last token, before and after each block."""
        states: list[Tensor] = []

        def before(_module: nn.Module, given: Any) -> None:
            states[:] = [given[0][:, -1]]

        def after(_module: nn.Module, _given: Any, output: Any) -> None:
            states.append((output[0] if isinstance(output, tuple) else output)[:, -1])

        handles = [self.blocks[0].register_forward_pre_hook(before)]
        handles += [block.register_forward_hook(after) for block in self.blocks]
        try:
            yield states
        finally:
            for handle in handles:
                handle.remove()

    def look(self, states: list[Tensor]) -> Seen:
        """Figures of the states that `stream` left; one layer's logits at a time."""
        last = self.logits(states[-1]).log_softmax(-1)
        best = last.argmax(-1, keepdim=True)
        found: dict[str, list[Tensor]] = {"entropy": [], "divergence": [], "rank": [], "at_top": []}
        for state in states:
            logp = self.logits(state).log_softmax(-1)
            found["entropy"].append(-(logp.exp() * logp).sum(-1))
            found["divergence"].append((last.exp() * (last - logp)).sum(-1))
            found["rank"].append(1 + (logp > logp.gather(-1, best)).sum(-1))
            found["at_top"].append(logp.argmax(-1) == best[:, 0])
        entropy, divergence, rank, at_top = (torch.stack(values, 1).cpu() for values in found.values())
        # Layers from the end that agree without a gap.
        agreed = at_top.flip(1).long().cumprod(1).sum(1)
        top = last.gather(-1, best)[:, 0].exp().cpu().double()
        return Seen(entropy.double(), divergence.double(), rank.double(), len(states) - agreed, top)
