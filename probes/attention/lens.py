"""The logit lens: what a model's head makes of the stream after each layer, at the token that makes a prediction.

The head was trained on the last layer alone; what it makes of early ones is not what these hold.

Of a causal model and a T5's decoder that token is the last one, and makes the next. What reads both ways makes no next
token: there a text's last word is masked (`Batch.asked`), and its place is asked. So each text has one prediction, by
one query, whatever the family, at a single pass more; to mask every token in turn would take as many passes as the text
has tokens, and would be a mean over queries, which a causal model's figure is not.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from modulant.backbones.families import Parts
from modulant.backbones.families.base import at_path
from modulant.backbones.opening import Backbone
from probes.attention.reading import decoder_of

WITHOUT = "it makes no next token and fills no mask, or lacks a head or a mask for it"


@dataclass(frozen=True, eq=False)
class Seen:
    """What the head makes of a batch, before the first layer and after each: (B, L + 1).

    Attributes:
        entropy: of the predicted token, in nat.
        divergence: KL(last ‖ layer), in nat.
        unigram: KL(layer ‖ unigram distribution of the texts), in nat.
        rank: of the token that is last the likeliest, from 1.
        commit: (B,) the number of layers after which that token is the likeliest and stays so.
        top: (B,) its probability after the last layer.
    """

    entropy: Tensor
    divergence: Tensor
    unigram: Tensor
    rank: Tensor
    commit: Tensor
    top: Tensor


class Lens:
    """Head and final norm of the stack that makes tokens; use `of`.

    Attributes:
        masked: whether a masked token is asked for, not the next one.
    """

    def __init__(self, backbone: Backbone, parts: Parts):
        family = parts.family
        self.masked = not family.causal
        self.blocks = parts.blocks
        self.norm: Any = nn.Identity() if family.final_norm is None else at_path(parts.stack, family.final_norm)
        paths = family.masked_head if self.masked else ()
        self.head: Sequence[Any] = [at_path(backbone.model, path) for path in paths] or [backbone.head]
        config = backbone.model.config
        scaled = getattr(config, "scale_decoder_outputs", False)
        if config.model_type == "umt5":
            scaled = config.tie_word_embeddings
        self.scale = parts.shape.d_model**-0.5 if scaled else 1.0
        self.cap: float | None = getattr(config, "final_logit_softcapping", None)

    @classmethod
    def of(cls, backbone: Backbone) -> "Lens | None":
        """None for a model that makes no next token and fills no mask, or has no head for it."""
        parts = decoder_of(backbone) or backbone.parts
        heads = {"lm", "seq2seq"} if parts.family.causal else {"masked_lm"}
        if not heads & set(parts.family.heads) or backbone.head is None:
            return None
        lens = cls(backbone, parts)
        return None if None in lens.head else lens

    def logits(self, state: Tensor) -> Tensor:
        """(B, V) of states (B, D) before the final norm, as the model's own head makes them of the last ones."""
        made = self.norm(state) * self.scale
        for module in self.head:
            made = module(made)
        logits = cast(Tensor, made).float()
        return logits if self.cap is None else self.cap * (logits / self.cap).tanh()

    @contextmanager
    def stream(self, asked: Tensor | None = None) -> Iterator[list[Tensor]]:
        """Context in which a forward pass leaves the stream at one token of each text, before and after each block.

        Args:
            asked: (B,) places of these tokens; None: the last.
        """
        states: list[Tensor] = []

        def at(state: Tensor) -> Tensor:
            return state[:, -1] if asked is None else state[torch.arange(len(asked)), asked.to(state.device)]

        def before(_module: nn.Module, given: Any) -> None:
            states[:] = [at(given[0])]

        def after(_module: nn.Module, _given: Any, output: Any) -> None:
            states.append(at(output[0] if isinstance(output, tuple) else output))

        handles = [self.blocks[0].register_forward_pre_hook(before)]
        handles += [block.register_forward_hook(after) for block in self.blocks]
        try:
            yield states
        finally:
            for handle in handles:
                handle.remove()

    def look(self, states: list[Tensor], unigram: Tensor) -> Seen:
        """Figures of the states that `stream` left; one layer's logits at a time.

        Args:
            states: before the first block and after each, (B, D).
            unigram: (V,) log probabilities.
        """
        last = self.logits(states[-1]).log_softmax(-1)
        unigram = unigram.to(last)
        best = last.argmax(-1, keepdim=True)
        found: dict[str, list[Tensor]] = {name: [] for name in ("entropy", "divergence", "unigram", "rank", "at_top")}
        for state in states:
            logp = self.logits(state).log_softmax(-1)
            found["entropy"].append(-(logp.exp() * logp).sum(-1))
            found["divergence"].append(divergence(last, logp))
            found["unigram"].append(divergence(logp, unigram))
            found["rank"].append(1 + (logp > logp.gather(-1, best)).sum(-1))
            found["at_top"].append(logp.argmax(-1) == best[:, 0])
        of = {name: torch.stack(values, 1).cpu().double() for name, values in found.items()}
        # Layers from the end that agree without a gap.
        agreed = of["at_top"].flip(1).long().cumprod(1).sum(1)
        top = last.gather(-1, best)[:, 0].exp().cpu().double()
        return Seen(of["entropy"], of["divergence"], of["unigram"], of["rank"], len(states) - agreed, top)


def divergence(logp: Tensor, logq: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p (ln p − ln q) over the last dimension, in nat, of log probabilities.

    >>> divergence(torch.tensor([1.0, 0.0]).log(), torch.tensor([0.5, 0.5]).log())
    tensor(0.6931)
    """
    return torch.where(logp > -torch.inf, logp.exp() * (logp - logq), 0.0).sum(-1)


def unigram_of(counts: Tensor) -> Tensor:
    """(V,) log probabilities of tokens by how often each is in the texts; Witten and Bell's estimate.

    Of N tokens of k kinds, k / (N + k) goes to the kinds that are in no text, evenly; one that is c times in them has
    c / (N + k). A distribution that is 0 somewhere would have everything infinitely far from it.

    >>> unigram_of(torch.tensor([2, 1, 0, 0])).exp()
    tensor([0.4000, 0.2000, 0.2000, 0.2000], dtype=torch.float64)
    """
    counts = counts.double()
    kinds, unseen = (counts > 0).sum(), int((counts == 0).sum())
    if not unseen:
        return (counts / counts.sum()).log()
    rest = kinds / unseen if kinds else torch.ones(())
    return (torch.where(counts > 0, counts, rest) / (counts.sum() + (kinds if kinds else unseen))).log()
