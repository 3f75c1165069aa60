"""What a command would do, without doing it: sizes, steps, devices and memory. Nothing is written.

Counts are exact; memory is what training holds on its device. Weights, gradients and AdamW's state are counted, and the
activations that the backward pass needs are measured: one forward pass of two examples as long as the longest batch,
with random weights of the backbone's shape, counted once for each storage that autograd keeps, and scaled to the batch.
Against the peak of three real steps on a CPU that gave 2 to 6% too much for five configurations, and 13% too little
under gradient checkpointing, where a block that is computed again holds its activations a second time. What libraries,
WordNet and evaluations take on the host is not in it.
"""

import math
import time
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM

from cli.folder import RunFolder
from datamodules import WordNetDataModule
from datamodules.arguments import STANDARD_INPUT
from modulant.backbones.t5 import freeze
from modulant.corpus.batching import epoch_batches
from modulant.corpus.ragged import IntArray
from modulant.reports.wording import number
from modulators.training.adapted import AdaptedT5
from modulators.training.frozen import FrozenT5
from modulators.training.lower_cache import CacheSize

# Beyond it a forward pass with random weights takes minutes and the memory of the training itself.
_LARGEST_TRIED = 1_000_000_000  # parameters
_MIB = 2**20


def plan(
    subcommand: str, module: pl.LightningModule, data: Any, trainer: pl.Trainer, given: Any, folder: RunFolder
) -> dict[str, Any]:
    """The facts, as a mapping that JSON can hold.

    Args:
        module: built, its backbone not loaded.
        given: the configuration of the subcommand.
    """
    began = time.monotonic()
    facts: dict[str, Any] = {
        "command": subcommand,
        "class": type(module).__name__,
        "run_folder": str(folder.expected()),
    }
    if given.get("ckpt_path"):
        facts["going_on_from"] = str(given.ckpt_path)
    facts["devices"] = _devices(trainer)
    if isinstance(module, FrozenT5):
        model = _frozen_model(module)
        facts["model"] = _model(module, model)
    if isinstance(data, WordNetDataModule):
        asks = subcommand == "predict"
        data.setup("predict" if asks else "fit")
        if not (asks and data.prompts is not None):  # which takes WordNet
            facts["data"] = _data(data)
        if subcommand == "fit":
            facts["training"] = _training(data, given.trainer, trainer.world_size)
            if isinstance(module, FrozenT5):
                if module.caching.where is not None:
                    facts["cache"] = _cache(module, data)
                facts["memory"] = _memory(module, model, data)
                facts["checkpoint"] = _checkpoint(module, given.checkpoint)
        if asks:
            prompts = data.corpus.held_out if data.prompts is None else data.prompts
            facts["prompts"] = STANDARD_INPUT if prompts == STANDARD_INPUT else len(list(prompts))
    facts["seconds"] = round(time.monotonic() - began, 1)
    return facts


def _frozen_model(module: FrozenT5) -> Any:
    """A backbone of the same shape on no device, with what learns attached where that is on none either."""
    with torch.device("meta"):
        return freeze(
            AutoModelForSeq2SeqLM.from_config(
                module._config, trust_remote_code=False, dtype=getattr(torch, module.backbone_dtype)
            )
        )


def _model(module: FrozenT5, model: Any) -> dict[str, Any]:
    about: dict[str, Any] = {
        "backbone": module.backbone,
        "d_model": module.stream.d_model,
        "encoder_layers": module.stream.n_layers,
        "vocabulary": module.stream.vocab_size,
        "frozen_parameters": sum(p.numel() for p in model.parameters()),
        "dtype": module.backbone_dtype,
        "layers": module.layers,
        "schedule": module.schedule,
    }
    groups: list[dict[str, Any]]
    if isinstance(module, AdaptedT5):  # whose parameters are made with the backbone
        about["learns"] = module.adapter_name
        groups = [{"name": "adapter", "parameters": module.plan.parameters, "lr": module.lr}]
    else:
        about["learns"] = type(module.modulator).__name__
        groups = [
            {"name": group["name"], "parameters": sum(p.numel() for p in group["params"]), "lr": group["lr"]}
            for group in module._parameter_groups()
        ]
    return about | {"groups": groups, "trained_parameters": sum(group["parameters"] for group in groups)}


def _data(data: WordNetDataModule) -> dict[str, Any]:
    about = data.describe()
    keys = ("task", "wordnet", "entries", "train_entries", "held_out_entries", "split", "batch_size")
    return {key: about[key] for key in keys} | {"max_source_tokens": about["max_source_tokens"] + 1}


def _devices(trainer: pl.Trainer) -> dict[str, Any]:
    return {
        "accelerator": type(trainer.accelerator).__name__.removesuffix("Accelerator").lower(),
        "devices": trainer.num_devices,
        "nodes": trainer.num_nodes,
        "processes": trainer.world_size,
        "strategy": type(trainer.strategy).__name__,
        "precision": str(trainer.precision),
    }


def _training(data: WordNetDataModule, given: Any, world: int) -> dict[str, Any]:
    """Steps as Lightning will count them."""
    batches = math.ceil(len(data.corpus.trained) / (data.batch_size * world))
    limit = given.get("limit_train_batches")
    if given.get("overfit_batches"):
        limit = given.overfit_batches
    if isinstance(limit, float):
        batches = int(batches * limit)
    elif limit is not None:
        batches = min(batches, limit)
    together = given.get("accumulate_grad_batches") or 1
    epochs, most = given.get("max_epochs"), given.get("max_steps", -1)
    if given.get("fast_dev_run"):
        batches, epochs, most = min(batches, int(given.fast_dev_run)), 1, -1
    a_epoch = math.ceil(batches / together)
    total = None if epochs in (None, -1) else epochs * a_epoch
    if most is not None and most >= 0:
        total = most if total is None else min(total, most)
    return {
        "batches_per_epoch": batches,
        "steps_per_epoch": a_epoch,
        "epochs": epochs,
        "steps": total,
        "examples_per_step": data.batch_size * world * together,
    }


def _memory(module: FrozenT5, model: Any, data: WordNetDataModule) -> dict[str, Any]:
    """Bytes on each device, by what holds them; None for what was not tried."""
    learned = _learned_bytes(module)
    found: dict[str, Any] = {
        "weights": sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()]),
        "learned": learned,
        "gradients": learned,
        "adamw": 2 * learned,
    }
    examples, source, target = longest_batch(data)
    found["longest_batch"] = [examples, source, target]
    if sum(p.numel() for p in model.parameters()) > _LARGEST_TRIED or module.compiled:
        return found | {"activations": None, "total": None}
    of_two = kept_for_backward(module, source, target)
    # the logits' own gradient comes beside what is kept
    logits = examples * target * module.stream.vocab_size * 4
    found["activations"] = int(of_two * examples / 2) + logits
    parts = ("weights", "learned", "gradients", "adamw", "activations")
    return found | {"total": sum(int(found[part]) for part in parts)}


def _cache(module: FrozenT5, data: WordNetDataModule) -> dict[str, Any]:
    """Of all processes together."""
    stream = getattr(torch, module.backbone_dtype)
    size = CacheSize.of(module.caching, module.layers[0], data.batch_shapes(), module.stream.d_model, stream)
    where = "on disk" if module.caching.where == "disk" else "in memory"
    return {"bytes": size.bytes, "exact": size.exact, "told": size.describe(where)}


def _learned_bytes(module: FrozenT5) -> int:
    if isinstance(module, AdaptedT5):
        return 4 * module.plan.parameters
    assert module.modulator is not None
    return sum(p.numel() * p.element_size() for p in module.modulator.parameters() if p.requires_grad)


def longest_batch(data: WordNetDataModule) -> tuple[int, int, int]:
    """Examples, source and target tokens of a process's batch that has most, padding included."""
    corpus = data.corpus
    sources, targets = corpus.sources.lengths[corpus.trained], corpus.targets.lengths[corpus.trained]
    batches = epoch_batches(sources, data.batch_size, data.order_seed, 0, targets)
    multiple = data.pad_to_multiple_of

    def padded(lengths: IntArray) -> int:
        return -(-int(lengths.max()) // multiple) * multiple

    sizes = [(len(rows), padded(sources[rows]), padded(targets[rows])) for rows in batches]
    return max(sizes, key=lambda size: size[0] * size[1])


def kept_for_backward(module: FrozenT5, source: int, target: int, examples: int = 2) -> int:
    """Bytes that autograd keeps of a forward pass, weights left out, each storage once."""
    with torch.random.fork_rng(devices=[]):
        config = module._config
        model = freeze(
            AutoModelForSeq2SeqLM.from_config(
                config, trust_remote_code=False, dtype=getattr(torch, module.backbone_dtype)
            )
        )
        module.take(model)
    kept: list[Tensor] = []  # held, so that no storage's place is used twice
    module.train()
    ids = torch.full((examples, source), 2)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.full((examples, target), 2)}

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(batch)
    weights = {_storage(p) for p in [*nn.Module.parameters(module), *model.parameters(), *model.buffers()]}
    sizes = {_storage(tensor): tensor.untyped_storage().nbytes() for tensor in kept}
    return sum(size for place, size in sizes.items() if place not in weights)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _checkpoint(module: FrozenT5, given: Any) -> dict[str, Any]:
    return {"bytes": 3 * _learned_bytes(module), "kept": given.save_top_k}


def told(facts: dict[str, Any]) -> str:
    """The facts as a page."""
    rows: list[tuple[str, str]] = []
    if (model := facts.get("model")) is not None:
        rows += [
            (
                "backbone",
                f"{model['backbone']}: {model['frozen_parameters']:,} frozen parameters ({model['dtype']}), width "
                f"{model['d_model']}, {model['encoder_layers']} encoder layers, vocabulary {model['vocabulary']:,}",
            ),
            (
                "learns",
                f"{model['learns']} in encoder layers {', '.join(map(str, model['layers']))}: "
                f"{model['trained_parameters']:,} parameters",
            ),
            *(("", f"{g['name']}: {g['parameters']:,} at {g['lr']:g}") for g in model["groups"]),
        ]
    else:
        rows.append(("learns", f"{facts['class']}, of which no sizes and steps are told beforehand"))
    if (data := facts.get("data")) is not None:
        rows.append(
            (
                "data",
                f"{data['task']} over WordNet {data['wordnet']}: {data['entries']:,} entries, "
                f"{data['held_out_entries']:,} of them held out, by {data['split']}; "
                f"{data['max_source_tokens']} tokens at most",
            )
        )
    if (training := facts.get("training")) is not None:
        epochs = "epochs without end" if training["epochs"] in (None, -1) else number_of(training["epochs"], "epoch")
        steps = "without end" if training["steps"] is None else f"{training['steps']:,} in all"
        schedule = f"; {model['schedule']} rate, no warm-up" if model else ""
        rows += [
            ("steps", f"{epochs} of {number_of(training['steps_per_epoch'], 'step')}, {steps}{schedule}"),
            ("a step", f"{training['examples_per_step']} examples over all processes"),
        ]
    where = facts["devices"]
    several = f" on each of {where['nodes']} nodes" if where["nodes"] > 1 else ""
    rows.append(
        ("devices", f"{where['devices']} × {where['accelerator']}{several}, {where['strategy']}, {where['precision']}")
    )
    if (memory := facts.get("memory")) is not None:
        rows += _memory_rows(memory)
    if (cache := facts.get("cache")) is not None:
        rows.append(("cache", f"{cache['told']}; batches keep their members"))
    if (checkpoint := facts.get("checkpoint")) is not None:
        kept = "all kept" if checkpoint["kept"] == -1 else f"the newest {checkpoint['kept']} kept"
        rows.append(("checkpoint", f"≈ {_mib(checkpoint['bytes'])} each, {kept}"))
    if "prompts" in facts:
        asks = "what is typed or piped in" if facts["prompts"] == "-" else number_of(facts["prompts"], "prompt")
        rows.append(("asks", asks))
    if "going_on_from" in facts:
        rows.append(("goes on from", facts["going_on_from"]))
    rows.append(("run folder", facts["run_folder"]))
    head = f"{facts['command']} would run as follows; nothing was written ({number(facts['seconds'], 1)} s)"
    return "\n".join([head, *(f"  {name:<13}{text}" for name, text in rows)])


def _memory_rows(memory: dict[str, Any]) -> list[tuple[str, str]]:
    counted = ", ".join(
        f"{name} {_mib(memory[key])}"
        for key, name in (
            ("weights", "weights"), ("learned", "what learns"), ("gradients", "gradients"), ("adamw", "AdamW"),
        )
    )  # fmt: skip
    examples, source, _ = memory["longest_batch"]
    if memory["activations"] is None:
        return [("memory", f"{counted}; activations were not tried: too large a backbone for that, or compiled")]
    return [
        ("memory", f"≈ {_mib(memory['total'])} a device in training: {counted},"),
        ("", f"activations ≈ {_mib(memory['activations'])} (the longest batch, {examples} × {source} tokens)"),
    ]


def number_of(n: int, what: str) -> str:
    """
    >>> number_of(1, "prompt"), number_of(1200, "prompt")
    ('1 prompt', '1,200 prompts')
    """
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _mib(size: int) -> str:
    """
    >>> _mib(1536), _mib(3 * 2**19)
    ('1.5 KiB', '1.5 MiB')
    """
    return f"{size / 1024:.1f} KiB" if size < _MIB else f"{size / _MIB:,.1f} MiB"
