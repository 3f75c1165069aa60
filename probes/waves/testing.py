"""The test, once: bits per byte of the trained arms on the whole test part, also by frequency and by position."""

import json
from pathlib import Path

import torch
from torch.nn import functional as F

from datamodules import TextDataModule
from probes.pages import write_json
from wavegpt import WaveGPT, load
from wavegpt.training.losses import IGNORED
from wavegpt.training.quality import TextQuality

FILE = "test.json"
_BATCH_TOKENS = 16_384


def tested(folder: Path, data: TextDataModule, device: torch.device) -> dict[str, float]:
    """Figures of a run's model on the test part, from its file where they were measured before."""
    file = folder / FILE
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        pass
    found = measure(load(folder / "wavegpt").to(device), data, device)
    write_json(file, found)
    return found


@torch.inference_mode()
def measure(model: WaveGPT, data: TextDataModule, device: torch.device, part: str = "test") -> dict[str, float]:
    """Figures of `TextQuality` by their names, over a whole part."""
    windows, ranks = data.windows(part), torch.from_numpy(data.tokenizer.ranks)
    quality = TextQuality(ranks=ranks, context=data.context).to(device)
    for rows in windows.batches(max(_BATCH_TOKENS // data.context, 1)):
        batch = windows.batch(rows)
        labels = batch["labels"].to(device)
        logits = model(batch["input_ids"].to(device)).float()
        nats = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
        quality.update(nats.view_as(labels)[None], labels, batch["bytes"])
    return {name: float(value) for name, value in quality.compute().items()}
