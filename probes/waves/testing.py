"""The test, once: bits per byte of the trained arms on the whole test part, also by frequency and by position."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules import TextDataModule
from probes.pages import write_json
from wavegpt import WaveGPT, load
from wavegpt.training.losses import IGNORED

GROUPS = 10  # of ids by their rank, and of positions
FILE = "test.json"
_BATCH_TOKENS = 16_384


def tested(folder: Path, data: TextDataModule, device: torch.device) -> dict[str, Any]:
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
def measure(model: WaveGPT, data: TextDataModule, device: torch.device, part: str = "test") -> dict[str, Any]:
    """Bits per byte, nats a token, and nats a token by tenths of the vocabulary and of the context.

    Tenths of the vocabulary are by rank of frequency in the training part, the commonest first.
    """
    windows, ranks = data.windows(part), torch.from_numpy(data.tokenizer.ranks)
    of_token = ranks * GROUPS // len(ranks)
    of_place = torch.arange(data.context) * GROUPS // data.context
    sums = {name: torch.zeros(GROUPS, 2, dtype=torch.float64) for name in ("frequency", "position")}
    nats, tokens, size = 0.0, 0, 0
    for rows in windows.batches(max(_BATCH_TOKENS // data.context, 1)):
        batch = windows.batch(rows)
        labels = batch["labels"]
        logits, wanted = model(batch["input_ids"].to(device)).float().flatten(0, 1), labels.to(device).flatten()
        losses = F.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="none")
        # on the CPU, which adds in the same order every time
        losses, there = losses.double().cpu().view_as(labels), labels != IGNORED
        places = of_place[: labels.shape[1]].expand_as(labels)
        for name, groups in (("frequency", of_token[labels.clamp(min=0)]), ("position", places)):
            _add(sums[name], groups[there], losses[there])
        nats, tokens, size = nats + float(losses.sum()), tokens + int(there.sum()), size + batch["bytes"]
    return {
        "bits_per_byte": nats / (math.log(2) * size), "nats_per_token": nats / tokens, "tokens": tokens, "bytes": size,
        **{f"by_{name}": _means(both.numpy()) for name, both in sums.items()},
    }  # fmt: skip


def _add(sums: Tensor, groups: Tensor, losses: Tensor) -> None:
    sums[:, 0].index_add_(0, groups, losses)
    sums[:, 1].index_add_(0, groups, torch.ones_like(losses))


def _means(both: "np.ndarray[Any, Any]") -> Mapping[str, list[float | None]]:
    """Mean loss and number of tokens of each group."""
    return {
        "nats_per_token": [float(total / n) if n else None for total, n in both],
        "tokens": [int(n) for n in both[:, 1]],
    }
