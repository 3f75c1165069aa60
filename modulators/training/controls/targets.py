"""Which matrices of a block LoRA or IA³ adapts, and at what rank: those that come nearest to a number of parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from modulant.backbones.families.base import sides
from modulant.backbones.opening import Backbone, of_random_weights
from modulators.arguments import Adapter

_NEAR = 0.01  # LoRA: counts that differ by this share of what was asked for are as good as each other

# LoRA's sets of targets, the largest first: more matrices at a lower rank reach more of the model.
_LORA_TARGETS = (("q", "k", "v", "o", "wi", "wo"), ("q", "k", "v", "o"), ("q", "v"))
# IA³'s: what is scaled at its output, and what at its input. (k, v | wo) is its authors' choice. The next ones add
# what is no product of these: o's output, and q's input, since q's output only meets k's. The last has wi too, whose
# output a ReLU hands on to wo but for a sign: nothing else is left to scale.
_IA3_TARGETS = (
    (("k", "v"), ()),
    (("k", "v"), ("wo",)),
    (("k", "v", "o"), ("q", "wo")),
    (("k", "v", "o", "wi"), ("q", "wo")),
)


@dataclass(frozen=True)
class Plan:
    """What is adapted.

    Attributes:
        outputs: kinds of matrices; those of IA³ are scaled at their outputs.
        inputs: those that IA³ scales at their inputs.
        rank: LoRA's.
        parameters: how many it has.
    """

    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    rank: int | None
    parameters: int


def matrices(config: Any) -> dict[str, list[tuple[int, int]]]:
    """Kind → (d_in, d_out) of each such matrix in a block, of a T5 in one of its encoder."""
    bare = bare_model(config)
    return {kind: [*map(sides, found.values())] for kind, found in bare.family.matrices_of(bare.blocks[0]).items()}


def bare_model(config: Any) -> Backbone:
    """A backbone without a head whose weights are shapes alone."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return of_random_weights("", config)


def plan(adapter: Adapter, shapes: Mapping[str, list[tuple[int, int]]], n_layers: int, n_parameters: int) -> Plan:
    """The targets, and LoRA's rank, whose number of parameters is nearest to `n_parameters`.

    A rank is at most the smaller side of the smallest target, beyond which it adds nothing. Among LoRA's sets of
    targets that are about equally near, the largest is taken. A matrix that makes queries, keys and values at once
    stands for each of them; IA³ scales all three, at the output alone.

    Args:
        adapter: ``lora`` or ``ia3``.
        shapes: kind → (d_in, d_out) of each such matrix in a block.
        n_layers: number of blocks.
        n_parameters: how many are asked for.
    """
    plans = []
    if adapter == "lora":
        for kinds in (_named(kinds, shapes) for kinds in _LORA_TARGETS):
            targets = [shape for kind in kinds for shape in shapes[kind]]
            each = n_layers * sum(map(sum, targets))
            rank = min(max(1, round(n_parameters / each)), min(map(min, targets)))
            plans.append(Plan(kinds, (), rank, rank * each))
    else:
        for own_outputs, own_inputs in _IA3_TARGETS:
            outputs, inputs = _named(own_outputs, shapes), tuple(kind for kind in own_inputs if kind in shapes)
            scaled = [d_out for kind in outputs for _, d_out in shapes[kind]]
            scaled += [d_in for kind in inputs for d_in, _ in shapes[kind]]
            plans.append(Plan(outputs, inputs, None, n_layers * sum(scaled)))
    off = [abs(choice.parameters - n_parameters) for choice in plans]
    slack = _NEAR * n_parameters if adapter == "lora" else 0
    return next(choice for choice, far in zip(plans, off, strict=True) if far <= min(off) + slack)


def _named(kinds: tuple[str, ...], shapes: Mapping[str, Any]) -> tuple[str, ...]:
    """Kinds as a family has them: ``qkv`` where it has no q, k and v of their own."""
    return tuple(dict.fromkeys(kind if kind in shapes else "qkv" for kind in kinds))
