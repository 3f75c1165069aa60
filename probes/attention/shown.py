"""One text's whole attention, to look at, and as a file for other tools."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modulant.storage import storing, write_whole
from probes.attention.reading import attentions_of, forward, reading
from probes.attention.texts import Batch


@dataclass(frozen=True, eq=False)
class Shown:
    """One text.

    Attributes:
        tokens: as the tokenizer writes them.
        layers: that were read.
        weights: by name of `Attention`, (L, H, queries, keys).
        sink: the key with the largest weight over all heads and layers, and queries but the first.
        share: that weight.
    """

    tokens: list[str]
    layers: list[int]
    weights: dict[str, Tensor]
    sink: int
    share: float

    def curve(self) -> dict[str, Any]:
        """What the chart shows: means over heads of the first layer, the one with the strongest sink, the last."""
        own = self.weights[""]
        strongest = int(own[:, :, 1:, self.sink].mean((1, 2)).argmax()) if len(self.tokens) > 1 else 0
        places = sorted({0, strongest, len(own) - 1})
        return {
            "tokens": self.tokens,
            "sink": self.sink,
            "share": self.share,
            "layers": [self.layers[place] for place in places],
            "weights": [own[place].mean(0).tolist() for place in places],
        }

    def write(self, path: Path) -> None:
        """An .npz: ``tokens``, ``layers``, ``sink``, ``weights`` (L, H, T, T), and a T5's ``decoder`` and ``cross``."""
        arrays: dict[str, Any] = {name or "weights": weights.float().numpy() for name, weights in self.weights.items()}
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(
            path,
            lambda file: np.savez(
                file, tokens=np.array(self.tokens), layers=np.array(self.layers), sink=self.sink, **arrays
            ),
        )


def shown_text(subject: Any, batch: Batch, layers: Sequence[int]) -> Shown:
    """Read one text and keep everything."""
    backbone = subject.backbone
    attentions = {attention.name: attention for attention in attentions_of(backbone)}
    found: dict[str, list[Tensor]] = {name: [] for name in attentions}

    def receive(name: str, _layer: int, weights: Tensor, _visible: Tensor) -> None:
        found[name].append(weights[0].cpu())

    with torch.inference_mode(), reading(backbone, list(attentions.values()), layers, receive):
        forward(backbone, batch.inputs)
    whole = {name: torch.stack(weights) for name, weights in found.items() if weights}
    means = whole[""][:, :, 1:].mean((0, 1, 2)) if batch.inputs.shape[1] > 1 else torch.ones(1)
    tokens = subject.tokenizer.convert_ids_to_tokens(batch.inputs[0].tolist())
    sink = int(means.nan_to_num(0).argmax())
    return Shown([str(token) for token in tokens], list(layers), whole, sink, float(means[sink]))
