"""Contract checks under generation, gradient checkpointing, copies of the model, and compilation."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from modulators.contract.cases import LABELS, STREAM, Build, batch, close, encode, require, same
from modulators.hooks import attach


def generates(build: Build, model: Any) -> None:
    """`generate`, greedy and by beam search, uses the modulated encoder, and the base's when disabled or removed."""
    given = batch()

    def write(**how: Any) -> Tensor:
        out: Tensor = model.generate(**given, max_new_tokens=8, do_sample=False, **how)
        return out

    def logits(**inputs: Any) -> Tensor:
        out = model.generate(
            **inputs, max_new_tokens=8, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        return torch.stack(out.logits)

    base, base_beams = write(), write(num_beams=3)
    handle = attach(model, build(STREAM))
    passes: list[int] = []
    counting = model.encoder.register_forward_hook(lambda *_: passes.append(1))
    write()
    write(num_beams=3)
    counting.remove()
    require(len(passes) == 2, f"the encoder runs {len(passes)} times for two calls of generate")
    encoded = model.encoder(**given)
    theirs = logits(encoder_outputs=encoded, attention_mask=given["attention_mask"])
    require(same(logits(**given), theirs), "generate does not read the modulated encoder")
    with handle.disabled():
        require(
            same(write(), base) and same(write(num_beams=3), base_beams),
            "disabled, generate differs from the base",
        )
    handle.remove()
    require(
        same(write(), base) and same(write(num_beams=3), base_beams),
        "removed, generate differs from the base",
    )


def survives_gradient_checkpointing(build: Build, model: Any) -> None:
    """Gradients are equal with activation checkpointing, for two forward passes before two backward passes."""
    modulator = build(STREAM)
    attach(model, modulator)
    given = batch()
    other = {name: tensor.flip(0) for name, tensor in given.items()}
    trainable = {name: p for name, p in modulator.named_parameters() if p.requires_grad}

    def gradients() -> list[Tensor]:
        modulator.zero_grad()
        first, second = model(**given, labels=LABELS).loss, 3 * model(**other, labels=LABELS).loss
        first.backward()
        second.backward()
        return [p.grad.clone() for p in trainable.values() if p.grad is not None]

    plain = gradients()
    # Renamed in transformers 5.23; the old name warns.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    runs: list[int] = []
    model.encoder.block[1].layer[0].register_forward_hook(lambda *_: runs.append(1))
    for use_reentrant in (False, True):
        enable({"use_reentrant": use_reentrant})
        for block in model.encoder.block:
            block.training = True  # transformers checkpoints in training mode only; dropout below stays off
        runs.clear()
        checkpointed = gradients()
        require(len(runs) == 4, f"a block ran {len(runs)} times for two passes with recomputation; it must be 4 times")
        require(len(plain) == len(checkpointed) == len(trainable), "not every parameter gets a gradient")
        for name, a, b in zip(trainable, plain, checkpointed, strict=True):
            close(b, a, f"{name}'s gradient, reentrant {use_reentrant}")


def leaves_the_state_dict(build: Build, model: Any) -> None:
    """The model's state dict keeps its keys, and a copy of the model has its own hooks."""
    given = batch()
    base, keys = encode(model, given), list(model.state_dict())
    handle = attach(model, build(STREAM))
    require(list(model.state_dict()) == keys, "attached, the model's state dict has other keys")
    twin = copy.deepcopy(model)
    handle.remove()
    require(same(encode(model, given), base), "removed from a model that was copied, the output is not the base's")
    require(not torch.equal(encode(twin, given), base), "a copy of the model is not modulated")


def compiles_in_one_graph(build: Build, model: Any, backend: str = "eager") -> None:
    """torch.compile captures the modulated encoder as one graph, and also disabled or removed."""
    given = batch()
    base = encode(model, given)
    modulator = build(STREAM)
    handle = attach(model, modulator)
    modulated = encode(model, given)
    torch.compiler.reset()
    compiled: Any = torch.compile(model.encoder, fullgraph=True, backend=backend)

    def out() -> Tensor:
        found: Tensor = compiled(**given).last_hidden_state
        return found

    close(out(), modulated, "compiled", 1e-4, 1e-4)
    with handle.disabled():
        close(out(), base, "compiled and disabled", 1e-4, 1e-4)
    torch.autograd.backward(out().square().mean())
    without = [name for name, p in modulator.named_parameters() if p.requires_grad and p.grad is None]
    require(not without, f"compiled, {', '.join(without)} gets no gradient")
    handle.remove()
    close(out(), base, "compiled and removed", 1e-4, 1e-4)


MACHINERY: tuple[Callable[[Build, Any], None], ...] = (
    generates,
    survives_gradient_checkpointing,
    leaves_the_state_dict,
)
