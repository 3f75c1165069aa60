"""Where the parts run: the device, the model and its batches, and how steps are timed there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.harness import backbone, interleaved
from benchmarks.ways import Batch, Way, drawn_batch, drawn_lengths

FULL, FLOOR = "full fine-tuning", "nothing at all layers"


@dataclass
class Setting:
    """Where it runs, and how long."""

    device: torch.device
    quick: bool
    shape: str = ""

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def backbone(self) -> Any:
        if not self.quick:
            return backbone(self.shape).to(self.device)
        from transformers import T5Config, T5ForConditionalGeneration

        sizes = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 32, "num_heads": 4, "num_layers": 2}
        model = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0))
        return model.requires_grad_(False).eval().to(self.device)

    def batches(self, model: Any, examples: int = 32, n: int = 5) -> list[Batch]:
        """Of similar lengths each, as training has them: evenly spread over an epoch of drawn lengths, sorted."""
        lengths = sorted(drawn_lengths(examples * 270))
        starts = [int((i + 0.5) * 270 / n) * examples for i in range(n)]
        vocabulary, device = model.config.vocab_size, str(self.device)
        return [drawn_batch(vocabulary, lengths[s : s + examples], seed=s, device=device) for s in starts]

    def timed(self, ways: dict[str, Way], batches: Sequence[Batch]) -> dict[str, list[float]]:
        """Seconds a step: each turn walks through all batches, and waits for the device at its end alone."""

        def walk(way: Way) -> Callable[[], object]:
            return lambda: [way.step(batch) for batch in batches]

        taken = interleaved({name: walk(way) for name, way in ways.items()}, 2 if self.quick else 5, 1, self.device)
        return {name: [seconds / len(batches) for seconds in turns] for name, turns in taken.items()}


class NeedsGpuError(Exception):
    """Nothing to see on a CPU."""
