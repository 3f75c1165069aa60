"""What training a modulator on a frozen T5 takes on each device, by strategy: counted on shapes, without weights.

Weights, gradients and AdamW's state are counted on the meta device. Activations are measured on shapes too: a forward
pass of two examples on tensors that have none of their contents (FakeTensorMode), of which every storage that autograd
keeps counts once, scaled to the batch. In place of a modulator stands something that only makes the stream ask for
gradients from the first modulated layer on; what the modulator itself keeps is measured by itself, on real tensors of a
few tokens, as its own code may look at values.

A test holds that it is within 12% of the most memory that a process really takes in three steps of `mini` on a CPU (its
resident set, large blocks given back at once). With gradient checkpointing it says too little, by 16 to 30% where that
was looked at: a block that is computed again holds its activations a second time. What libraries, CUDA's context (about
half a GB) and its allocator take is not in it.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForSeq2SeqLM

from modulant.backbones.t5 import enable_activation_checkpointing, freeze, stream_of
from modulators import FieldModulator, LerpModulator, Modulator, ResidualStream

Strategy = Literal["single", "ddp", "fsdp"]
STRATEGIES = ("single", "ddp", "fsdp")
MODULATORS: Mapping[str, Callable[[ResidualStream], Modulator]] = {"field": FieldModulator, "lerp": LerpModulator}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_OPTIMIZERS = {"adamw": 2, "sgd": 0}  # numbers that it keeps of each that learns
OPTIMIZERS = tuple(_OPTIMIZERS)
_TRIED = 2  # examples, and tokens of each that a modulator is measured on
_FP32 = 4


@dataclass(frozen=True)
class Setting:
    """What is asked about.

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
    """A frozen T5 of this configuration on the meta device, with an output head of its own where it has one."""
    with torch.device("meta"):
        model = freeze(AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=False, dtype=dtype))
    return _untied(model, config)


def _untied(model: Any, config: Any) -> Any:
    # transformers 5 makes every T5 with its embeddings as head, and notes here what config.json said
    if not getattr(config, "scale_decoder_outputs", True) and model.lm_head.weight is model.shared.weight:
        model.lm_head.weight = nn.Parameter(torch.empty_like(model.shared.weight), requires_grad=False)
    return model


def memory(config: Any, setting: Setting) -> dict[str, Any]:
    """Bytes on each device by what holds them, their sum, and what all devices hold together."""
    model = shapes(config, DTYPES[setting.dtype])
    modulator = MODULATORS[setting.modulator](stream_of(config))
    learned = sum(p.numel() for p in modulator.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters())
    held, gathered = frozen_bytes(model, setting)
    several = setting.strategy != "single"
    each = {
        "frozen weights": held,
        "gathered blocks": gathered,
        "modulator": sum(t.numel() * t.element_size() for t in [*modulator.parameters(), *modulator.buffers()]),
        "gradients": _FP32 * learned,
        "gradients on their way": _FP32 * learned if several else 0,  # DDP's buckets, ShardedStrategy's one tensor
        "optimizer": _FP32 * learned * _OPTIMIZERS[setting.optimizer],
        "activations": activations(config, modulator, setting),
    }
    total = sum(each.values())
    return {
        "parameters": {"frozen": frozen, "learned": learned},
        "each": each,
        "total_each": total,
        "total": total * setting.devices,
    }


def frozen_bytes(model: Any, setting: Setting) -> tuple[int, int]:
    """What a device holds of the frozen weights, and what it gathers for a while, where blocks are dealt out.

    Gathered are at most three times the largest block: the one that is computed, the next, and the buffer that this one
    arrives in. Each tensor's rows are dealt out by themselves, rounded up.
    """
    every = [*model.parameters(), *model.buffers()]
    if setting.strategy != "fsdp":
        return sum(t.numel() * t.element_size() for t in every), 0
    whole = {id(p) for head in (model.shared, model.lm_head) for p in head.parameters()}
    held = 0
    for tensor in every:
        rows = len(tensor) if id(tensor) in whole else math.ceil(len(tensor) / setting.devices)
        held += rows * tensor[0].numel() * tensor.element_size()
    blocks = [*model.encoder.block, *model.decoder.block]
    largest = max(sum(p.numel() * p.element_size() for p in block.parameters()) for block in blocks)
    return held, 3 * largest if setting.devices > 1 else largest


def activations(config: Any, modulator: Modulator, setting: Setting) -> int:
    """Bytes that wait for the backward pass of a device's batch, and two gradients of the logits, as it begins."""
    layers = list(range(config.num_layers)) if setting.layers is None else list(setting.layers)
    of_two = _of_backbone(config, layers, setting, checkpointed=setting.gradient_checkpointing)
    if setting.gradient_checkpointing:
        # a block that is computed again holds its own once more
        one, two = (_cut(config, n) for n in (1, 2))
        of_two += _of_backbone(two, [0, 1], setting, False) - _of_backbone(one, [0], setting, False)
    of_two += (
        _TRIED
        * setting.source
        * _of_modulator(modulator, layers[0], setting)
        * (1 if setting.gradient_checkpointing else len(layers))
    )
    logits = setting.batch_size * setting.target * config.vocab_size * _FP32
    return of_two * setting.batch_size // _TRIED + 2 * logits


def _cut(config: Any, layers: int) -> Any:
    """The same with so few encoder blocks."""
    cut = copy.copy(config)
    cut.num_layers = layers
    return cut


class _Asks(nn.Module):
    """The stream as it is, but with a gradient."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(width))

    def forward(self, residual: Tensor) -> Tensor:
        return residual + self.nothing.to(residual.dtype)


def _of_backbone(config: Any, layers: Sequence[int], setting: Setting, checkpointed: bool) -> int:
    """Of two examples."""
    kept: list[Tensor] = []  # held, so that no storage's place is used twice

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with FakeTensorMode():
        model = freeze(AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=False, dtype=DTYPES[setting.dtype]))
        _untied(model, config)
        asks = _Asks(config.d_model)
        for layer in layers:
            model.encoder.block[layer].register_forward_pre_hook(lambda _, args: (asks(args[0]), *args[1:]))
        if checkpointed:
            enable_activation_checkpointing(model)
            for block in [*model.encoder.block, *model.decoder.block]:
                block.training = True
                # what a block is computed again from is held by its checkpoint, which is no tensor that autograd saves
                block.register_forward_hook(lambda _, __, output: kept.append(output[0]))
        ids = torch.full((_TRIED, setting.source), 2)
        labels = torch.full((_TRIED, setting.target), 2)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), _arithmetic(setting):
            model(input_ids=ids, labels=labels, use_cache=False)
        weights = {_storage(p) for p in [*model.parameters(), *asks.parameters()]}
        sizes = {_storage(tensor): tensor.untyped_storage().nbytes() for tensor in kept}
        return sum(size for place, size in sizes.items() if place not in weights)


def _of_modulator(modulator: Modulator, layer: int, setting: Setting) -> int:
    """Of a token of one layer, without what comes out of it, which the backbone's block keeps."""
    tokens = 64
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    stream = torch.zeros(1, tokens, modulator.stream.d_model, dtype=DTYPES[setting.dtype], requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), _arithmetic(setting):
        out = modulator(stream.clone(), layer, torch.full((1, tokens), 2))
    left = {_storage(t) for t in [*modulator.parameters(), *modulator.buffers(), out]}
    sizes = {_storage(tensor): tensor.untyped_storage().nbytes() for tensor in kept}
    return sum(size for place, size in sizes.items() if place not in left) // tokens


def _arithmetic(setting: Setting) -> Any:
    return torch.autocast("cpu", torch.bfloat16) if setting.dtype == "bfloat16" else nullcontext()


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


__all__ = ["DTYPES", "MODULATORS", "OPTIMIZERS", "STRATEGIES", "Setting", "activations", "memory", "shapes"]
