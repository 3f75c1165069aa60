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
    """Rows ``prompt``, ``lemma``, ``original``, ``modulated``; of an encoder ``prompt`` alone; none for other tasks.

    The first few have an ``inspection`` too, how far each token is moved, where a modulator is attached. Decoding is
    greedy, so that no random numbers are consumed. Every rank takes part: a strategy may gather weights.
    """
    data: Any = getattr(trainer, "datamodule", None)
    handle: Any = getattr(module, "handle", None)
    if handle is None or not hasattr(data, "examples"):
        return []
    examples = data.examples(EXAMPLES)
    answers = hasattr(module, "_answer")
    with evaluating(module), trainer.precision_plugin.forward_context():
        rows = _answers(module, data, handle, examples) if answers else []
        if hasattr(handle, "inspect"):
            rows = rows or [{"prompt": prompt} for prompt in examples["prompts"][:INSPECTED]]
            begin = torch.tensor(data.form.begin, dtype=torch.long)
            definitions = zip(examples["input_ids"], examples["attention_mask"], strict=True)
            for row, (ids, mask) in zip(rows[:INSPECTED], definitions, strict=False):
                inspection = handle.inspect(torch.cat([begin, ids[mask.bool()]]), data.tokenizer)
                row["inspection"] = inspection.as_dict()
    return rows


def _answers(module: Any, data: Any, handle: Any, examples: dict[str, Any]) -> list[dict[str, Any]]:
    batch = {key: value.to(module.device) if torch.is_tensor(value) else value for key, value in examples.items()}
    answers = []
    for context in (handle.disabled(), nullcontext()):
        with context:
            tokens = module._answer(batch, _MOST_TOKENS)
            answers.append(data.tokenizer.batch_decode(tokens, skip_special_tokens=True))
    answered = zip(batch["prompts"], batch["lemmas"], *answers, strict=True)
    return [dict(zip(("prompt", "lemma", "original", "modulated"), row, strict=True)) for row in answered]
