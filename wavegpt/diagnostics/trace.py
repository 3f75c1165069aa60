"""A trace of generation: what the model computed before each draw, read from cached decoding."""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wavegpt.attention.base import Attention
from wavegpt.attention.kernels import Features
from wavegpt.diagnostics.scores import scores_of
from wavegpt.model import WaveGPT
from wavegpt.observed import Observed
from wavegpt.sampling import Sampling, generate


@dataclass(frozen=True)
class Step:
    """What was there before a token was drawn.

    Attributes:
        token: that was drawn.
        top: likeliest tokens, the first the likeliest.
        probabilities: of them, as the model has it: before temperature and filters.
        entropy: of the model's distribution, nats.
        context: tokens that the attention sees, (K,).
        cross: of the last token with each of them, head by head, (H, K).
        key: their key bias, (H, K); None for a kind without one.
        phasors: (H, W) amplitudes and (H, W) angles of the last token's key; None for a kind without phasors.
    """

    token: int
    top: list[int]
    probabilities: list[float]
    entropy: float
    context: list[int]
    cross: list[list[float]]
    key: list[list[float]] | None
    phasors: tuple[list[list[float]], list[list[float]]] | None

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def trace(
    model: WaveGPT,
    prompt: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stop: Collection[int] = (),
    *,
    layer: int = -1,
    top: int = 8,
) -> Iterator[Step]:
    """The tokens of `generate`, with what one layer computed before each.

    Args:
        model: in eval mode.
        prompt: ids.
        max_new_tokens: at most.
        sampling: how they are drawn.
        stop: ids that end it.
        layer: whose attention is shown.
        top: likeliest tokens that are kept.

    Raises:
        ValueError: no such layer, or as of `generate`.
    """
    L = len(model.blocks)
    if not -L <= layer < L:
        raise ValueError(f"layer is {layer}; the model has {L}, so it must be 0 … {L - 1}")
    watch = _Watch(model, list(prompt), layer % L, top)
    for token in generate(model, [prompt], max_new_tokens, sampling, stop, watch=watch):
        yield watch.step(int(token))


class _Watch:
    """Collects keys from call to call, since a state of a linear arm holds none."""

    def __init__(self, model: WaveGPT, ids: list[int], layer: int, top: int) -> None:
        attention = model.blocks[layer].attention
        assert isinstance(attention, Attention)
        self.attention, self.layer, self.ids = attention, layer, ids
        self.window = None if model.config.attention.linear else model.config.context
        self.top = min(top, model.config.vocab_size or top)
        self.keys: Features = ()
        self.last: dict[str, Any] = {}

    def __call__(self, logits: Tensor, observed: Observed) -> None:
        query, key = observed.features[self.layer]
        joined = [torch.cat(parts, -2) for parts in zip(self.keys, key, strict=True)] if self.keys else key
        self.keys = tuple(part if self.window is None else part[..., -self.window :, :] for part in joined)
        scores = scores_of(self.attention, tuple(part[..., -1:, :] for part in query), self.keys)
        about = self.attention.about
        biased = about.kind == "interference" and about.terms != "cross"
        log_p = logits[0].float().log_softmax(-1)
        likeliest = log_p.topk(self.top)
        phasors = None
        if observed.phasors:
            real, imaginary = (part[0, :, -1].float() for part in observed.phasors[self.layer])
            phasors = torch.hypot(real, imaginary).tolist(), torch.atan2(imaginary, real).tolist()
        self.last = {
            "top": likeliest.indices.tolist(),
            "probabilities": likeliest.values.exp().tolist(),
            "entropy": float(torch.special.entr(log_p.exp()).sum()),
            "context": self.ids[-self.keys[0].shape[-2] :],
            "cross": scores.cross[0, :, 0].float().tolist(),
            "key": scores.key[0, :, 0].float().tolist() if biased else None,
            "phasors": phasors,
        }

    def step(self, token: int) -> Step:
        self.ids = [*self.ids, token]
        return Step(token, **self.last)
