"""Contract checks of a modulator by itself, without a backbone."""

import copy
import io
import pickle
from collections.abc import Callable

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from modulators.contract.cases import STREAM, Build, close, nudge, require, residual, same, token_ids


def is_identity_at_alpha_zero(build: Build) -> None:
    """At alpha 0 the stream is returned unchanged, bit for bit."""
    modulator, stream = build(STREAM), residual()
    for layer in range(STREAM.n_layers):
        out = modulator(stream, layer, token_ids(), 0.0)
        require(
            same(out, stream),
            f"layer {layer} changes the stream by up to {float((out - stream).detach().abs().max()):.2g} at alpha 0; "
            "_modulate must use the alpha that it is given, and be the identity at 0",
        )


def keeps_no_state(build: Build) -> None:
    """The same input gives the same output; a forward pass changes neither the state dict nor its input."""
    modulator, stream = build(STREAM), residual()
    before = {name: tensor.clone() for name, tensor in modulator.state_dict().items()}
    first = modulator(stream, 0, token_ids())
    require(same(stream, residual()), "forward modifies its input in place")
    require(same(modulator(stream, 0, token_ids()), first), "a second call with the same input gives another output")
    changed = [name for name, tensor in modulator.state_dict().items() if not same(tensor, before[name])]
    require(not changed, f"a forward pass changes {', '.join(changed)}")


def saves_and_loads(build: Build) -> None:
    """A state dict saved as safetensors and loaded into a new instance gives the same output at every layer."""
    modulator = build(STREAM)
    nudge(modulator)
    loaded = build(STREAM)
    loaded.load_state_dict(load_tensors(save_tensors(modulator.state_dict())), strict=True)
    for layer in range(STREAM.n_layers):
        here, there = (m(residual(), layer, token_ids()) for m in (modulator, loaded))
        require(same(here, there), f"layer {layer} gives another output after loading: the state dict is incomplete")


def is_built_again_by_init_args(build: Build) -> None:
    """`init_args`, which are primitives, and the state dict rebuild the modulator."""
    modulator = build(STREAM)
    nudge(modulator)
    for name, value in modulator.init_args.items():
        plain = isinstance(value, bool | int | float | str | list | None)
        require(plain, f"init_args: {name} is a {type(value).__name__}; it must be a JSON value")
    again = type(modulator)(STREAM, **modulator.init_args)
    again.load_state_dict(modulator.state_dict(), strict=True)
    require(
        same(again(residual(), 2, token_ids()), modulator(residual(), 2, token_ids())),
        "rebuilt, it gives another output: init_args must hold every argument of the constructor except the stream",
    )


def can_be_copied(build: Build) -> None:
    """Copies by deepcopy, pickle and torch.save give the same output and share no state with the original."""
    modulator = build(STREAM)
    nudge(modulator)
    expected = modulator(residual(), 0, token_ids())
    buffer = io.BytesIO()
    torch.save(modulator, buffer)
    buffer.seek(0)
    copies = {
        "deepcopy": copy.deepcopy(modulator),
        "pickle": pickle.loads(pickle.dumps(modulator)),
        "torch.save": torch.load(buffer, weights_only=False),
    }
    for how, twin in copies.items():
        require(same(twin(residual(), 0, token_ids()), expected), f"{how}: the copy gives another output")
        nudge(twin)
        require(same(modulator(residual(), 0, token_ids()), expected), f"{how}: changing the copy changes the original")


def groups_every_parameter_once(build: Build) -> None:
    """`parameter_groups` contain each trainable parameter once, and alphas without weight decay."""
    modulator = build(STREAM)
    groups = modulator.parameter_groups(lr=1e-3, weight_decay=0.01)
    grouped = [id(p) for group in groups for p in group["params"]]
    trainable = {id(p): name for name, p in modulator.named_parameters() if p.requires_grad}
    forgotten = [name for key, name in trainable.items() if key not in grouped]
    require(not forgotten, f"{', '.join(forgotten)} is in no group: no optimizer would train it")
    twice = [trainable.get(key, "?") for key in trainable if grouped.count(key) > 1]
    require(not twice, f"{', '.join(twice)} is in more than one group")
    require(set(grouped) <= set(trainable), "a group contains a tensor that is not a trainable parameter")
    names = [group.get("name") for group in groups]
    require(None not in names and len(set(names)) == len(names), f"groups are named {names}; each needs a unique name")
    decayed = [g["name"] for g in groups if g["weight_decay"] and any(p is modulator.alpha_logits for p in g["params"])]
    require(not decayed, "alpha_logits have weight decay, which pulls alpha towards the middle of its range")
    if groups:
        torch.optim.AdamW(groups)


def has_alphas_and_names(build: Build) -> None:
    """`alphas` is layers × experts in fp32, `expert_names` names its columns, and `active_dims` are ascending."""
    modulator = build(STREAM)
    alphas, names = modulator.alphas, modulator.expert_names
    wanted = (STREAM.n_layers, len(names))
    require(
        tuple(alphas.shape) == wanted, f"alphas have shape {tuple(alphas.shape)}; layers and expert_names give {wanted}"
    )
    require(alphas.dtype == torch.float32, f"alphas are {alphas.dtype}; they must be torch.float32")
    require(bool((alphas > 0).all() and (alphas < 1).all()), "alphas must lie between 0 and 1")
    learns = isinstance(modulator.alpha_logits, nn.Parameter) and modulator.alpha_logits.requires_grad
    require(alphas.requires_grad == learns, "alphas must require a gradient exactly if alpha_logits do")
    dims = modulator.active_dims
    require(bool((dims.diff() > 0).all()) and int(dims[0]) >= 0 and int(dims[-1]) < STREAM.d_model,
            "active_dims must be dimensions of the stream, ascending")  # fmt: skip


def rounds_a_bf16_stream_once(build: Build) -> None:
    """A bf16 stream comes back in bf16: the fp32 result, rounded once; autocast changes nothing."""
    modulator, half = build(STREAM), residual().bfloat16()
    out = modulator(half, 1, token_ids())
    require(out.dtype == torch.bfloat16, f"a bf16 stream comes back as {out.dtype}")
    exact = modulator(half.float(), 1, token_ids()).bfloat16()
    require(
        same(out, exact),
        "the result is not that of fp32, rounded once: use at_least_fp32 and return .to(residual.dtype)",
    )
    plain = modulator(residual(), 1, token_ids())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        require(same(modulator(residual(), 1, token_ids()), plain), "autocast changes the result")


def looks_at_each_token_alone(build: Build) -> None:
    """A token's result does not depend on its neighbours, nor on how many there are; none at all are well too."""
    modulator = build(STREAM)
    whole = modulator(residual(), 1, token_ids())
    part = modulator(residual()[:, 5:9], 1, token_ids()[:, 5:9])
    close(part, whole[:, 5:9], "a token among others", 1e-5, 1e-6)
    empty = modulator(torch.zeros(2, 0, STREAM.d_model), 0, torch.zeros(2, 0, dtype=torch.long))
    require(tuple(empty.shape) == (2, 0, STREAM.d_model), f"an empty sequence comes back as {tuple(empty.shape)}")


ALONE: tuple[Callable[[Build], None], ...] = (
    is_identity_at_alpha_zero,
    keeps_no_state,
    saves_and_loads,
    is_built_again_by_init_args,
    can_be_copied,
    groups_every_parameter_once,
    has_alphas_and_names,
    rounds_a_bf16_stream_once,
    looks_at_each_token_alone,
)
