"""Answers of the original and the modulated model to a few held-out definitions, for the report."""

from contextlib import nullcontext
from typing import Any

import lightning.pytorch as pl
import torch

from callbacks.measures.representations import evaluating

EXAMPLES = 12
INSPECTED = 3  # of these, the first
_MOST_TOKENS = 16  # of an answer


@torch.no_grad()
def side_by_side(trainer: pl.Trainer, module: pl.LightningModule) -> list[dict[str, Any]]:
    """Rows ``prompt``, ``lemma``, ``original``, ``modulated``; none for a task or a model without answers.

    The first few have an ``inspection`` too, how far each token is moved, where a modulator is attached. Decoding is
    greedy, so that no random numbers are consumed. Every rank takes part: a strategy may gather weights.
    """
    data: Any = getattr(trainer, "datamodule", None)
    answer, handle = getattr(module, "_answer", None), getattr(module, "handle", None)
    if answer is None or handle is None or not hasattr(data, "examples"):
        return []
    examples = data.examples(EXAMPLES)
    batch = {key: value.to(module.device) if torch.is_tensor(value) else value for key, value in examples.items()}
    answers, inspections = [], []
    with evaluating(module), trainer.precision_plugin.forward_context():
        for context in (handle.disabled(), nullcontext()):
            with context:
                answers.append(data.tokenizer.batch_decode(answer(batch, _MOST_TOKENS), skip_special_tokens=True))
        if hasattr(handle, "inspect"):
            for ids, mask in zip(examples["input_ids"][:INSPECTED], examples["attention_mask"], strict=False):
                inspections.append(handle.inspect(ids[mask.bool()], data.tokenizer).as_dict())
    answered = zip(batch["prompts"], batch["lemmas"], *answers, strict=True)
    rows: list[dict[str, Any]] = [
        dict(zip(("prompt", "lemma", "original", "modulated"), row, strict=True)) for row in answered
    ]
    for row, inspection in zip(rows, inspections, strict=False):
        row["inspection"] = inspection
    return rows
