"""What a fit of a language model on text would do: sizes, steps and memory, without preparing the text."""

from collections.abc import Callable
from typing import Any

import torch

from datamodules import TextDataModule
from probes.memory.model import kept_of, learning_bytes
from wavegpt import Observed, WaveGPT, WaveLM, wave_loss
from wavegpt.training.optimizer import parameter_groups

_TRIED = 2  # rows
_LARGEST_TRIED = 100_000_000  # parameters


def facts_of(module: WaveLM, data: TextDataModule, steps: Callable[[int, int], Any], several: bool) -> dict[str, Any]:
    """Facts about a model and its text.

    Args:
        module: built, without its model.
        steps: examples and batch size → the steps of a training.
        several: whether processes share the batches.
    """
    prepared = data.find()
    vocab_size = data.tokenizer.vocab_size if prepared else data.expected_vocabulary
    found: dict[str, Any] = {
        "text": {
            "corpus": data.corpus_name, "tokenizer": data.recipe.tokenizer, "context": data.context,
            "prepared": prepared, **(data.shards.describe() if prepared else {}),
        }
    }  # fmt: skip
    if vocab_size is None:
        return found
    config = module.config_for(vocab_size, data.context)
    with torch.random.fork_rng(devices=[]):
        model = WaveGPT(config, torch.arange(vocab_size))
    counts = model.parameter_counts()
    groups = parameter_groups(model, config.optimizer)
    found["arm"] = {
        "d_model": config.d_model,
        "layers": config.layers,
        "heads": config.heads,
        "vocabulary": vocab_size,
        "embedding": config.embedding.kind,
        "attention": config.attention.kind,
        "optimizer": config.optimizer.base,
        "trained_parameters": counts["total"],
        "parameters": dict(counts),
        "groups": [
            {"name": group["name"], "parameters": sum(p.numel() for p in group["params"]), "lr": group["lr"]}
            for group in groups
        ],
        "schedule": module.schedule,
        "warmup_steps": module.warmup_steps,
        "remarks": list(config.remarks),
    }
    if prepared:
        found["training"] = steps(len(data.windows("train")), data.batch_size)
    found["memory"] = _memory(model, data, several)
    found["checkpoint"] = {"bytes": 12 * counts["total"]}
    return found


def _memory(model: WaveGPT, data: TextDataModule, several: bool) -> dict[str, Any]:
    """Bytes on each device, by what holds them."""
    learned = model.parameter_counts()["total"]
    learning = learning_bytes(learned, several)
    buffers = sum(t.numel() * t.element_size() for t in model.buffers())
    found: dict[str, Any] = {
        "weights": buffers,
        "learned": learning["gradients"],
        "gradients": learning["gradients"] + learning["gradients on their way"],
        "adamw": learning["optimizer"],
        "longest_batch": [data.batch_size, data.context, data.context],
    }
    if learned > _LARGEST_TRIED:
        return found | {"activations": None, "total": None}
    ids = torch.zeros(_TRIED, data.context, dtype=torch.long)
    loss = model.config.loss
    observed = Observed() if loss.phase or loss.energy or loss.harmonic else None
    kept = kept_of(
        lambda: wave_loss(model(ids, observed=observed), ids, loss, observed), [*model.parameters(), *model.buffers()]
    )
    found["activations"] = kept.of_batch(_TRIED, data.batch_size, data.context, model.config.vocab_size or 1)
    parts = ("weights", "learned", "gradients", "adamw", "activations")
    return found | {"total": sum(int(found[part]) for part in parts)}


def rows_of(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts as rows of a page."""
    rows: list[tuple[str, str]] = []
    if (arm := facts.get("arm")) is not None:
        counts = arm["parameters"]
        rows += [
            (
                "learns",
                f"{arm['layers']} layers of width {arm['d_model']}, {arm['heads']} heads, vocabulary "
                f"{arm['vocabulary']:,}; embedding {arm['embedding']}, attention {arm['attention']}, optimizer "
                f"{arm['optimizer']}: {counts['total']:,} parameters",
            ),
            ("", ", ".join(f"{name} {counts[name]:,}" for name in ("embedding", "other", "head"))),
            *(("", f"{g['name']}: {g['parameters']:,} at {g['lr']:g}") for g in arm["groups"]),
            *(("remark", f"model.{remark}") for remark in arm["remarks"]),
        ]
    text = facts["text"]
    about = f"{text['corpus']} by {text['tokenizer']}, windows of {text['context']} tokens"
    if text["prepared"]:
        about += f": {text['train_tokens']:,} tokens to train on, {text['val_tokens']:,} for validation"
    else:
        about += "; it is tokenised when it is used first, and steps are known then"
    return [*rows, ("data", about)]
