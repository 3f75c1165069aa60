"""What training a modulator on a frozen T5 takes on each device, by strategy: counted on shapes, without weights.

Weights, gradients and AdamW's state are counted on the meta device. Activations are measured on shapes too: a forward
pass of two examples on tensors that have none of their contents (FakeTensorMode), of which every storage that autograd
keeps counts once, scaled to the batch. In place of a modulator stands something that only makes the stream ask for
gradients from the first modulated layer on; what the modulator itself keeps is measured by itself, on real tensors of a
few tokens, as its own code may look at values.

Tests hold that it is at most 10% below and 15% above the most memory that a process really takes in two steps of `mini`
on a CPU (its resident set, large blocks given back at once); in seven settings, three with gradient checkpointing, it
was between 8% too little and 13% too much (LERP). What libraries, CUDA's context (half a GB) and its allocator take
is not in it.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForSeq2SeqLM

from modulant.backbones.families import stream_of
from modulant.backbones.loading import freeze
from modulators import FieldModulator, LerpModulator, Modulator, ResidualStream

Strategy = Literal["single", "ddp", "fsdp"]
MODULATORS: Mapping[str, Callable[[ResidualStream], Modulator]] = {"field": FieldModulator, "lerp": LerpModulator}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_OPTIMIZERS = {"adamw": 2, "sgd": 0}  # numbers that it keeps of each that learns
_TRIED = 2  # examples
_FP32 = 4


@dataclass(frozen=True)
class Setting:
    """What is estimated.

    Attributes:
        devices: over all machines.
        dtype: of the frozen weights; with bfloat16 the arithmetic is mixed, as in bf16.yaml.
        batch_size: examples a device.
        source, target: tokens of each, padding included.
        layers: the modulated ones; None: all.
    """

    strategy: Strategy = "single"
    devices: int = 1
    dtype: str = "bfloat16"
    batch_size: int = 32
    source: int = 128
    target: int = 16
    modulator: str = "field"
    layers: Sequence[int] | None = None
    gradient_checkpointing: bool = False
    optimizer: str = "adamw"


def shapes(config: Any, dtype: torch.dtype) -> Any:
    """A frozen T5 of this configuration on the meta device."""
    with torch.device("meta"):
        return build(config, dtype)


def build(config: Any, dtype: torch.dtype) -> Any:
    """A frozen T5 of this configuration with random weights, and an output head of its own where it has one."""
    model = freeze(AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=False, dtype=dtype))
    # transformers 5 makes every T5 with its embeddings as head, and notes here what config.json said
    if not getattr(config, "scale_decoder_outputs", True) and model.lm_head.weight is model.shared.weight:
        model.lm_head.weight = nn.Parameter(model.shared.weight.detach().clone(), requires_grad=False)
    return model


def memory(config: Any, setting: Setting) -> dict[str, Any]:
    """Bytes on each device by what holds them, their sum, and what all devices hold together."""
    model = shapes(config, DTYPES[setting.dtype])
    modulator = MODULATORS[setting.modulator](stream_of(config))
    learned = sum(p.numel() for p in modulator.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters())
    held, gathered = frozen_bytes(model, setting.devices if setting.strategy == "fsdp" else None)
    each = {
        "frozen weights": held,
        "gathered blocks": gathered,
        "modulator": sum(t.numel() * t.element_size() for t in [*modulator.parameters(), *modulator.buffers()]),
        **learning_bytes(learned, setting.strategy != "single", setting.optimizer),
        "activations": activations(config, modulator, setting),
    }
    total = sum(each.values())
    return {
        "parameters": {"frozen": frozen, "learned": learned},
        "each": each,
        "total_each": total,
        "total": total * setting.devices,
    }


def learning_bytes(learned: int, several: bool, optimizer: str = "adamw") -> dict[str, int]:
    """What comes to the parameters that learn, all of it fp32.

    Args:
        learned: how many there are.
        several: whether processes share their gradients: in DDP's buckets, in ShardedStrategy's one tensor.
        optimizer: ``adamw``, which keeps two numbers of each, or ``sgd``.
    """
    size = _FP32 * learned
    return {
        "gradients": size,
        "gradients on their way": size if several else 0,
        "optimizer": size * _OPTIMIZERS[optimizer],
    }


def frozen_bytes(model: Any, shards: int | None) -> tuple[int, int]:
    """What a device holds of the frozen weights, and what it gathers for a while, where blocks are sharded.

    Gathered are at most three times the largest block: the one that is computed, the next, and the buffer that this one
    arrives in. Each tensor's rows are sharded by themselves, rounded up.

    Args:
        model: on any device.
        shards: over how many devices; None: every one holds all.
    """
    every = [*model.parameters(), *model.buffers()]
    if shards is None:
        return sum(t.numel() * t.element_size() for t in every), 0
    whole = {id(p) for head in (model.shared, model.lm_head) for p in head.parameters()}
    held = 0
    for tensor in every:
        rows = len(tensor) if id(tensor) in whole else math.ceil(len(tensor) / shards)
        held += rows * tensor[0].numel() * tensor.element_size()
    blocks = [*model.encoder.block, *model.decoder.block]
    largest = max(sum(p.numel() * p.element_size() for p in block.parameters()) for block in blocks)
    return held, 3 * largest if shards > 1 else largest


def activations(config: Any, modulator: Modulator, setting: Setting) -> int:
    """Bytes that a device's batch takes as the backward pass begins."""
    layers = list(range(config.num_layers)) if setting.layers is None else list(setting.layers)
    kept = _of_backbone(config, layers, setting)
    modulated = _TRIED * setting.source * len(layers) * _of_modulator(modulator, layers[0], setting)
    kept = kept._replace(stays=kept.stays + modulated)
    return kept.of_batch(_TRIED, setting.batch_size, setting.target, config.vocab_size)


class Kept(NamedTuple):
    """Bytes that autograd keeps of a forward pass for the backward pass.

    Attributes:
        stays: until the backward pass comes by.
        again: what the largest of the blocks keeps while it is computed again, where blocks are.
    """

    stays: int
    again: int = 0

    def of_batch(self, tried: int, examples: int, target: int, vocab_size: int) -> int:
        """The most bytes at once, scaled from some examples to a batch.

        The backward pass begins with two gradients, of the logits and of their logarithms, (B, T, V) each. They are
        gone when a block is computed again.
        """
        logits = _FP32 * examples * target * vocab_size
        return self.stays * examples // tried + max(2 * logits, self.again * examples // tried)


def kept_of(call: Callable[[], object], weights: Iterable[Tensor], recomputed: Sequence[nn.Module] = ()) -> Kept:
    """Measure what autograd keeps of what `call` computes, each storage once.

    Args:
        call: run once.
        weights: left out.
        recomputed: blocks that training will compute again in the backward pass, and `call` does not: of each stays
            what it is given. What forward pre-hooks do before it is not computed again.
    """
    outside: list[Tensor] = []  # all tensors are held, so that no storage's place is used twice
    inside: list[list[Tensor]] = []
    now = [outside]

    def enter(_: object, args: tuple[Tensor, ...]) -> None:
        outside.append(args[0])
        inside.append([])
        now.append(inside[-1])

    def keep(tensor: Tensor) -> Tensor:
        now[-1].append(tensor)
        return tensor

    handles = [block.register_forward_pre_hook(enter) for block in recomputed]
    handles += [block.register_forward_hook(lambda *_: now.pop() and None) for block in recomputed]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = call()
    for handle in handles:
        handle.remove()
    left_out = {_storage(tensor) for tensor in weights}

    def size(tensors: Iterable[Tensor]) -> int:
        sizes = {_storage(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}
        return sum(size for place, size in sizes.items() if place not in left_out)

    found = Kept(size(outside), max(map(size, inside), default=0))
    del result
    return found


class _Asks(nn.Module):
    """The stream as it is, but with a gradient."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(width))

    def forward(self, residual: Tensor) -> Tensor:
        return residual + self.nothing.to(residual.dtype)


def _of_backbone(config: Any, layers: Sequence[int], setting: Setting) -> Kept:
    """Of the tried examples, without what a modulator keeps."""
    with FakeTensorMode():
        model = build(config, DTYPES[setting.dtype])
        asks = _Asks(config.d_model)
        for layer in layers:
            model.encoder.block[layer].register_forward_pre_hook(lambda _, args: (asks(args[0]), *args[1:]))
        ids, labels = (torch.full((_TRIED, tokens), 2) for tokens in (setting.source, setting.target))
        blocks = [*model.encoder.block, *model.decoder.block] if setting.gradient_checkpointing else []
        with arithmetic(setting.dtype == "bfloat16"):
            call = partial(model, input_ids=ids, labels=labels, use_cache=False)
            return kept_of(call, [*model.parameters(), *asks.parameters()], blocks)


def _of_modulator(modulator: Modulator, layer: int, setting: Setting) -> int:
    """Of a token of one layer, without what comes out of it, which the backbone's block keeps."""

    def kept(tokens: int) -> int:
        residual = torch.zeros(1, tokens, modulator.stream.d_model, dtype=DTYPES[setting.dtype], requires_grad=True)
        ids, left_out = torch.full((1, tokens), 2), [*modulator.parameters(), *modulator.buffers()]

        def call() -> Tensor:
            left_out.append(out := modulator(residual.clone(), layer, ids))
            return out

        with arithmetic(setting.dtype == "bfloat16"):
            return kept_of(call, left_out).stays

    return (kept(128) - kept(64)) // 64  # some tensors are of no token: they do not grow


def arithmetic(mixed: bool) -> Any:
    """The precision of products, on shapes: bfloat16 where that is mixed."""
    return torch.autocast("cpu", torch.bfloat16, enabled=mixed)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
