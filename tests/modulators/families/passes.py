"""Modulators for models of every family, and a stack's pass by hand."""

from typing import Any

from torch import Tensor

from modulant.backbones.families import Parts
from modulators import FieldModulator, LerpModulator, Modulator, ResidualStream
from tests.tiny_families import CAUSAL, inputs_for


def lerp(stream: ResidualStream) -> Modulator:
    return LerpModulator(stream, n_geometric_dims=8, initial_alpha=0.3)


def field(stream: ResidualStream) -> Modulator:
    return FieldModulator(stream, initial_alpha=0.3)


def modulators_for(model_type: str) -> list[Any]:
    return [field] if "pixel_values" in inputs_for(model_type) else [field, lerp]


def run(parts: Parts, **given: Any) -> Tensor:
    if parts.family.causal and parts.family.model_type in CAUSAL:
        given["use_cache"] = False
    out: Tensor = parts.stack(**given).last_hidden_state
    return out


def by_hand(parts: Parts, modulator: Modulator | None, token_ids: Tensor | None, **given: Any) -> Tensor:
    """Run block after block on what a modulator makes of the stream between them, in a stack without hooks of ours.

    What the blocks get besides does not depend on the stream: it is that of a plain pass.
    """
    calls: list[tuple[Any, Any]] = []
    hooks = [
        block.register_forward_pre_hook(lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)
        for block in parts.blocks
    ]
    run(parts, **given)
    for hook in hooks:
        hook.remove()
    hidden = calls[0][0][0]
    for layer, (block, (args, kwargs)) in enumerate(zip(parts.blocks, calls, strict=True)):
        if modulator is not None:
            hidden = modulator(hidden, layer, token_ids)
        out = block(hidden, *args[1:], **kwargs)
        hidden = out if isinstance(out, Tensor) else out[0]
    norm = parts.family.final_norm
    return hidden if norm is None else parts.stack.get_submodule(norm)(hidden)
