"""What a command would do, without doing it: sizes, steps, devices and memory. Nothing is written.

Counts are exact. Memory is what training holds on its device, by the estimator of `probes.memory.model`, which measures
what autograd keeps of one forward pass: here of the module itself, two examples as long as the longest batch, with
random weights of the backbone's shape. What libraries, WordNet and evaluations take on the host is not in it.
"""

import math
import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch import nn

from cli.dry_run.plan_text import facts_of, rows_of
from cli.folder import RunFolder
from datamodules import TextDataModule, WordNetDataModule
from datamodules.arguments import STANDARD_INPUT
from modulant.backbones.families import parts_of as model_parts
from modulant.backbones.opening import of_random_weights
from modulant.corpus.batching import epoch_batches, synset_batches
from modulant.corpus.ragged import IntArray
from modulant.reports.wording import layers_named, number, parts_of
from modulators.training.controls.adapted import Adapted
from modulators.training.controls.tuned import Tuned
from modulators.training.frozen.base import FrozenModel
from modulators.training.frozen.lemmas import NamesLemmas
from modulators.training.frozen.stack import FrozenStack
from modulators.training.frozen.t5 import FrozenT5
from modulators.training.lower_cache import CacheSize
from probes.memory.model import Kept, arithmetic, build, frozen_bytes, kept_of, learning_bytes
from wavegpt import WaveLM

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
    if isinstance(module, FrozenModel):
        with torch.device("meta"):
            model = _backbone(module)
        facts["model"] = _model(module, model)
    if isinstance(data, WordNetDataModule):
        asks = subcommand == "predict"
        data.setup("predict" if asks else "fit")
        if not (asks and data.prompts is not None):  # which takes WordNet
            facts["data"] = _data(data)
        if subcommand == "fit":
            examples = len(data.corpus.trained) if data.near_pairs is None else len(data.training_synsets)
            facts["training"] = _training(examples, data.batch_size, given.trainer, trainer.world_size)
            if isinstance(module, FrozenT5) and module.caching.where is not None:
                facts["cache"] = _cache(module, data)
            if isinstance(module, FrozenModel):
                learned = facts["model"]["trained_parameters"]
                facts["memory"] = _memory(module, model, learned, data, trainer)
                facts["checkpoint"] = {"bytes": 12 * learned, "kept": given.checkpoint.save_top_k}
        if asks:
            prompts = data.corpus.test if data.prompts is None else data.prompts
            facts["prompts"] = STANDARD_INPUT if prompts == STANDARD_INPUT else len(list(prompts))
    if isinstance(module, WaveLM) and isinstance(data, TextDataModule):

        def steps(examples: int, batch_size: int) -> dict[str, Any]:
            return _training(examples, batch_size, given.trainer, trainer.world_size)

        facts |= facts_of(module, data, steps, trainer.world_size > 1)
        if subcommand != "fit":
            for key in ("training", "memory", "checkpoint"):
                facts.pop(key, None)
        elif "checkpoint" in facts:
            facts["checkpoint"]["kept"] = given.checkpoint.save_top_k
    facts["seconds"] = round(time.monotonic() - began, 1)
    return facts


def _backbone(module: FrozenModel) -> Any:
    """As the module loads it, but with random weights."""
    dtype = getattr(torch, module.backbone_dtype)
    if isinstance(module, FrozenStack):  # of a causal model with its tokenizer, for the question
        return module._taken_from(of_random_weights(module.backbone, module._config, module._head, dtype))
    assert isinstance(module, FrozenT5)
    return build(module._config, dtype)


def _model(module: FrozenModel, model: Any) -> dict[str, Any]:
    numbers = sum(p.numel() for p in model.parameters())
    learns: str
    if isinstance(module, Adapted):  # whose parameters are made with the backbone
        learns = module.adapter_name
        groups = [{"name": "adapter", "parameters": module.plan.parameters, "lr": module.lr}]
    elif isinstance(module, Tuned):  # whose parameters are the backbone's
        learns, blocks = "every weight", model_parts(model).blocks
        tuned = sum(p.numel() for layer in module.layers for p in blocks[layer].parameters())
        numbers -= tuned
        groups = [{"name": "blocks", "parameters": tuned, "lr": module.lr}]
    else:
        learns = type(module.modulator).__name__
        groups = [
            {"name": group["name"], "parameters": sum(p.numel() for p in group["params"]), "lr": group["lr"]}
            for group in module._parameter_groups()
        ]
    return {
        "backbone": module.backbone,
        "d_model": module.stream.d_model,
        "encoder_layers": module.stream.n_layers,
        "vocabulary": module.stream.vocab_size,
        "frozen_parameters": numbers,
        "dtype": module.backbone_dtype,
        "layers": module.layers,
        "schedule": module.schedule,
        "learns": learns,
        "groups": groups,
        "trained_parameters": sum(group["parameters"] for group in groups),
    }


def _data(data: WordNetDataModule) -> dict[str, Any]:
    about = data.describe()
    keys = ["task", "wordnet", "entries", "train_entries", "held_out_entries", "split", "batch_size"]
    keys += [key for key in ("validation_entries", "test_entries") if key in about]
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


def _training(examples: int, batch_size: int, given: Any, world: int) -> dict[str, Any]:
    """Steps as Lightning will count them."""
    batches = math.ceil(examples / (batch_size * world))
    limit = given.get("limit_train_batches")
    if given.get("overfit_batches"):
        limit = given.overfit_batches
    if isinstance(limit, float) and limit <= 1:
        batches = int(batches * limit)
    elif limit is not None:  # 5 may arrive as 5.0: typing keeps one Union of int and float, in the order it met first
        batches = min(batches, int(limit))
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
        "examples_per_step": batch_size * world * together,
    }


def _memory(
    module: FrozenModel, model: Any, learned: int, data: WordNetDataModule, trainer: pl.Trainer
) -> dict[str, Any]:
    """Bytes on each device, by what holds them; None for what was not tried.

    Of blocks that learn the frozen ones are kept as well: what learns counts twice.
    """
    sharded = isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy)
    if sharded and isinstance(module, FrozenStack):
        raise module.refuse_sharding()
    learning = learning_bytes(learned, trainer.world_size > 1)
    examples, source, target = longest_batch(data)
    found: dict[str, Any] = {
        "weights": sum(frozen_bytes(model, trainer.world_size if sharded else None)),
        "learned": learning["gradients"],
        "gradients": learning["gradients"] + learning["gradients on their way"],
        "adamw": learning["optimizer"],
        "longest_batch": [examples, source, target],
    }
    if sum(p.numel() for p in model.parameters()) > _LARGEST_TRIED or module.compiled:
        return found | {"activations": None, "total": None}
    with arithmetic("bf16" in str(trainer.precision)):
        kept = kept_for_backward(module, source, target, hidden=_hidden(source, data))
    scored = target if isinstance(module, NamesLemmas) else _hidden(source, data)  # tokens of an example
    found["activations"] = kept.of_batch(2, examples, scored, module.stream.vocab_size)
    parts = ("weights", "learned", "gradients", "adamw", "activations")
    return found | {"total": sum(int(found[part]) for part in parts)}


def _cache(module: FrozenT5, data: WordNetDataModule) -> dict[str, Any]:
    """Of all processes together."""
    stream = getattr(torch, module.backbone_dtype)
    size = CacheSize.of(module.caching, module.layers[0], data.batch_shapes(), module.stream.d_model, stream)
    where = "on disk" if module.caching.where == "disk" else "in memory"
    return {"bytes": size.bytes, "exact": size.exact, "told": size.describe(where)}


def _hidden(source: int, data: WordNetDataModule) -> int:
    """About how many of an example's tokens are hidden, for a masked-language-model head; 0 without one."""
    return 0 if data.mask_share is None else math.ceil(data.mask_share * source)


def longest_batch(data: WordNetDataModule) -> tuple[int, int, int]:
    """Examples, source and target tokens of a process's batch that has most, padding included."""
    corpus = data.corpus
    sources, targets = corpus.sources.lengths[corpus.trained], corpus.targets.lengths[corpus.trained]
    if data.near_pairs is None:
        batches = epoch_batches(sources, data.batch_size, data.order_seed, 0, targets)
    else:
        own, entries = data.training_synsets, data.training_synsets.drawn_entries(data.order_seed, 0)
        drawn = synset_batches(own.sources.lengths, own.edges, data.batch_size, data.near_pairs, data.order_seed, 0)
        batches = [entries[rows] for rows in drawn]
    multiple = data.pad_to_multiple_of

    def padded(lengths: IntArray) -> int:
        return -(-int(lengths.max()) // multiple) * multiple

    sizes = [(len(rows), padded(sources[rows]), padded(targets[rows])) for rows in batches]
    return max(sizes, key=lambda size: size[0] * size[1])


def kept_for_backward(module: FrozenModel, source: int, target: int, examples: int = 2, hidden: int = 0) -> Kept:
    """What autograd keeps of a pass that trains the module, on a backbone with random weights.

    Args:
        source, target: tokens of an example.
        hidden: how many of the source's are to be found by a masked-language-model head.
    """
    with torch.random.fork_rng(devices=[]):
        model = _backbone(module)
        module.take(model)
    module.train()
    blocks = list(module._checkpointed_blocks()) if module.gradient_checkpointing else []
    for block in blocks:
        block.training = False  # nothing is computed again here
    ids = torch.full((examples, source), 2)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.full((examples, target), 2)}
    at = torch.arange(examples * hidden)
    batch |= {"masked_ids": ids, "masked_at": at, "masked_targets": at.clamp(max=2), "masked_weight": torch.ones(())}
    weights = [*nn.Module.parameters(module), *model.parameters(), *model.buffers()]
    task = isinstance(module, FrozenT5) or module.objective.needs_task
    return kept_of(lambda: module._training_pass(batch, task), weights, blocks)


def told(facts: dict[str, Any]) -> str:
    """The facts as text."""
    rows: list[tuple[str, str]] = []
    if (model := facts.get("model")) is not None:
        rows += [
            (
                "backbone",
                f"{model['backbone']}: {model['frozen_parameters']:,} frozen parameters ({model['dtype']}), width "
                f"{model['d_model']}, {model['encoder_layers']} layers, vocabulary {model['vocabulary']:,}",
            ),
            (
                "learns",
                f"{model['learns']} in layers {layers_named(model['layers'])}: "
                f"{model['trained_parameters']:,} parameters",
            ),
            *(("", f"{g['name']}: {g['parameters']:,} at {g['lr']:g}") for g in model["groups"]),
        ]
    elif "text" in facts:
        rows += rows_of(facts)
    else:
        rows.append(("learns", f"{facts['class']}, whose sizes and steps are not known beforehand"))
    if (data := facts.get("data")) is not None:
        rows.append(
            (
                "data",
                f"{data['task']} over WordNet {data['wordnet']}: {data['entries']:,} entries, "
                f"{data['held_out_entries']:,} of them held out{parts_of(data)}, by {data['split']}; "
                f"{data['max_source_tokens']} tokens at most",
            )
        )
    if (training := facts.get("training")) is not None:
        epochs = "epochs without end" if training["epochs"] in (None, -1) else number_of(training["epochs"], "epoch")
        steps = "without end" if training["steps"] is None else f"{training['steps']:,} in all"
        schedule = f"; {model['schedule']} rate, no warm-up" if model else ""
        if arm := facts.get("arm"):
            schedule = f"; {arm['schedule']} rate, warm-up over {number_of(arm['warmup_steps'], 'step')}"
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
        rows.append(("resumes from", facts["going_on_from"]))
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
    """A count with its noun.

    >>> number_of(1, "prompt"), number_of(1200, "prompt")
    ('1 prompt', '1,200 prompts')
    """
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _mib(size: int) -> str:
    """Bytes in KiB or MiB.

    >>> _mib(1536), _mib(3 * 2**19)
    ('1.5 KiB', '1.5 MiB')
    """
    return f"{size / 1024:.1f} KiB" if size < _MIB else f"{size / _MIB:,.1f} MiB"
