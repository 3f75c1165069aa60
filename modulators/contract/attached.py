"""Contract checks of a modulator attached to a T5, or to a small model of another family of the same sizes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from modulant.backbones.families import parts_of
from modulators.contract.cases import STREAM, Build, batch, close, encode, loss_of, require, same
from modulators.hooks import attach


def is_the_base_when_off(build: Build, model: Any) -> None:
    """Attached, it changes the output; disabled, scaled by 0 or removed, the output is the base's, bit for bit."""
    given = batch()
    base = encode(model, given)
    handle = attach(model, build(STREAM))
    modulated = encode(model, given)
    require(not torch.equal(modulated, base), "attached, it changes nothing")
    with handle.disabled():
        require(same(encode(model, given), base), "disabled, the output is not the base's")
        with handle.disabled():
            require(same(encode(model, given), base), "disabled twice, the output is not the base's")
        require(same(encode(model, given), base), "leaving an inner disabled() enables it")
    require(same(encode(model, given), modulated), "enabled again, it gives another output")
    with handle.scaled(0.0):
        require(same(encode(model, given), base), "scaled by 0, the output is not the base's")
    with handle.scaled(0.5):
        half = encode(model, given)
        require(not torch.equal(half, base) and not torch.equal(half, modulated), "scaling alpha by 0.5 has no effect")
        with handle.scaled(2.0):
            require(same(encode(model, given), modulated), "scaling by 0.5 and by 2 is not scaling by 1")
    handle.remove()
    handle.remove()
    require(same(encode(model, given), base), "removed, the output is not the base's")


def trains_exactly_its_parameters(build: Build, model: Any) -> None:
    """Each trainable parameter gets a finite gradient, and the backbone none."""
    modulator = build(STREAM)
    attach(model, modulator)
    frozen = {name: p.detach().clone() for name, p in model.state_dict().items()}
    torch.autograd.backward(loss_of(model))
    for name, p in modulator.named_parameters():
        if p.requires_grad:
            require(p.grad is not None, f"{name} gets no gradient: it is unused, which fails under DDP")
            require(bool(p.grad.isfinite().all()), f"{name} gets a gradient that is not finite")  # type: ignore[union-attr]
    touched = [name for name, p in model.named_parameters() if p.grad is not None]
    require(not touched, f"the backbone gets gradients: {', '.join(touched[:3])}")
    groups = modulator.parameter_groups(lr=0.1, weight_decay=0.0)
    if groups:
        torch.optim.SGD(groups, lr=0.1).step()
    require(list(model.state_dict()) == list(frozen), "the backbone's state dict has other keys")
    require(all(same(p, frozen[name]) for name, p in model.state_dict().items()), "a step changes the backbone")


def leaves_other_hooks_alone(build: Build, model: Any) -> None:
    """Other hooks run equally often and in the same order: attached, disabled and removed."""
    seen: list[str] = []
    parts = parts_of(model)
    block = parts.blocks[1]
    block.register_forward_pre_hook(lambda *_: seen.append("before"))
    handle = attach(model, build(STREAM))
    block.register_forward_pre_hook(lambda *_: seen.append("after"))
    block.register_forward_hook(lambda *_: seen.append("output"))
    parts.stack.register_forward_hook(lambda *_: seen.append("stack"))
    encode(model, batch())
    with handle.disabled():
        encode(model, batch())
    handle.remove()
    encode(model, batch())
    require(seen == 3 * ["before", "after", "output", "stack"], f"other hooks ran in the order {seen}")


def modulates_only_its_layers(build: Build, model: Any) -> None:
    """Attached to some layers, it is called for exactly those, with the stream that the block would have read."""
    before: dict[int, Tensor] = {}
    after: dict[int, Tensor] = {}

    def record(into: dict[int, Tensor]) -> None:
        for i, block in enumerate(parts_of(model).blocks):
            block.register_forward_pre_hook(lambda _, args, i=i: into.update({i: args[0].clone()}))

    record(before)
    modulator = build(STREAM)
    handle = attach(model, modulator, layers=[2, 1])
    record(after)
    given = batch()
    encode(model, given)
    require(handle.layers == [1, 2], f"its layers are {handle.layers}")
    require(same(before[0], after[0]), "a layer outside `layers` is modulated")
    for i in (1, 2):
        require(same(after[i], modulator(before[i], i, given["input_ids"])), f"layer {i} reads another stream")


def touches_active_dims_alone(build: Build, model: Any) -> None:
    """Dimensions outside `active_dims` stay unchanged, bit for bit; some inside change."""
    seen: list[Tensor] = []
    modulator, first = build(STREAM), parts_of(model).blocks[0]
    first.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    attach(model, modulator)
    first.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    encode(model, batch())
    before, after = seen  # of the first block; later ones read what attention has mixed
    untouched = torch.ones(before.shape[-1], dtype=torch.bool)
    untouched[modulator.active_dims] = False
    left = same(before[..., untouched].view(torch.int32), after[..., untouched].view(torch.int32))
    require(left, "a dimension outside active_dims is changed")
    require(bool((before != after)[..., ~untouched].any()), "no dimension in active_dims is changed")


def ignores_padding(build: Build, model: Any) -> None:
    """More padding changes nothing at the real tokens."""
    attach(model, build(STREAM))
    given = batch()
    short = encode(model, given)
    padded = encode(model, {name: nn.functional.pad(t, (0, 9)) for name, t in given.items()})
    real = given["attention_mask"].bool()
    close(padded[:, :72][real], short[real], "nine more tokens of padding")


def runs_in_bf16(build: Build, model: Any) -> None:
    """Under autocast and on a bf16 backbone the output stays near that in fp32."""
    attach(model, build(STREAM))
    full = encode(model, batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = encode(model, batch())
    model.to(torch.bfloat16)
    half = encode(model, batch())
    require(half.dtype == torch.bfloat16, f"the stack's output is {half.dtype}")
    for how, out in (("autocast", mixed), ("a bf16 backbone", half)):
        # Outputs are normalised, so entries are near 1; bf16 has 8 significant bits, errors add over three layers.
        far = float((out.float() - full).detach().square().mean().sqrt())
        require(far < 0.03, f"{how}: {far:.2g} from fp32 (root mean square), more than bf16 explains")


ATTACHED: tuple[Callable[[Build, Any], None], ...] = (
    is_the_base_when_off,
    trains_exactly_its_parameters,
    leaves_other_hooks_alone,
    modulates_only_its_layers,
    touches_active_dims_alone,
    ignores_padding,
    runs_in_bf16,
)
