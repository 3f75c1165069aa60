"""A modulator on every known family: the same promises as on a T5, between and around the blocks."""

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

from modulant.backbones.families import parts_of
from modulators import FieldModulator, attach, stream_of
from modulators.contract.attached import ATTACHED
from modulators.contract.cases import STREAM as CONTRACT_STREAM
from tests.modulators.families.passes import by_hand, field, lerp, modulators_for, run
from tests.tiny_families import ALL, CAUSAL, MASKED, SEQ2SEQ, TEXT, build, inputs_for

NO_CHECKPOINTING = ("mpnet",)  # transformers has none for it


@torch.no_grad()
@pytest.mark.parametrize("model_type", ALL)
def test_as_by_hand_between_the_blocks(model_type: str) -> None:
    """In fp64, so that a difference is one of formula or place."""
    model = build(model_type).double()
    parts, given = parts_of(model), inputs_for(model_type)
    given = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in given.items()}
    base = run(parts, **given)
    torch.testing.assert_close(by_hand(parts, None, None, **given), base, rtol=1e-12, atol=1e-12)
    for kind in modulators_for(model_type):
        modulator = kind(stream_of(model.config)).double()
        expected = by_hand(parts, modulator, given.get("input_ids"), **given)
        handle = attach(model, modulator)
        out = run(parts, **given)
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
        assert float((out - base).abs().max()) > 1e-3
        handle.remove()


@torch.no_grad()
@pytest.mark.parametrize("model_type", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_off_it_is_the_base_to_the_bit(model_type: str, dtype: torch.dtype) -> None:
    model = build(model_type).to(dtype)
    given = inputs_for(model_type, padding="left")
    given = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in given.items()}
    keys, base = list(model.state_dict()), list(model_outputs(model_type, model, given))

    def is_base() -> bool:
        return all(map(torch.equal, model_outputs(model_type, model, given), base))

    # one that starts as the identity computes, and changes nothing
    identity = attach(model, FieldModulator(stream_of(model.config), gate="centred"))
    assert is_base()
    identity.remove()
    for kind in modulators_for(model_type):
        handle = attach(model, kind(stream_of(model.config)).to(dtype))
        assert not is_base()
        with handle.disabled():
            assert is_base()
        with handle.scaled(0.0):
            assert is_base()
        if kind is lerp:
            whole = next(model_outputs(model_type, model, given))
            handle.fuse()
            fused = next(model_outputs(model_type, model, given))
            torch.testing.assert_close(fused, whole, rtol=0.05, atol=0.05 if dtype == torch.bfloat16 else 1e-5)
        assert list(model.state_dict()) == keys
        handle.remove()
        assert is_base()


def model_outputs(model_type: str, model: Any, given: dict[str, Tensor]) -> Iterator[Tensor]:
    """The last hidden state, and what a head makes of it."""
    yield parts_of(model).stack(**given).last_hidden_state
    if model_type in SEQ2SEQ:
        yield model(**given, decoder_input_ids=given["input_ids"][:, :4]).logits
    elif model_type in TEXT:
        yield model(**given).logits


@torch.no_grad()
@pytest.mark.parametrize("model_type", SEQ2SEQ)
def test_a_decoder(model_type: str) -> None:
    """Its blocks and its token ids; the encoder and what cross attention reads stay as they are."""
    model = build(model_type, num_decoder_layers=2).double()
    parts, stream = parts_of(model, "decoder"), stream_of(model.config, "decoder")
    assert parts.stack is model.decoder
    given = inputs_for(model_type)
    encoded = model.encoder(**given).last_hidden_state
    target = inputs_for(model_type, length=16)["input_ids"]
    theirs = {
        "input_ids": target,
        "encoder_hidden_states": encoded,
        "encoder_attention_mask": given["attention_mask"],
        "use_cache": False,
    }
    for kind in (lerp, field):
        modulator = kind(stream).double()
        expected = by_hand(parts, modulator, target, **theirs)
        handle = attach(model, modulator, side="decoder")
        assert handle.layers == [0, 1]
        torch.testing.assert_close(run(parts, **theirs), expected, rtol=1e-12, atol=1e-12)
        assert torch.equal(model.encoder(**given).last_hidden_state, encoded)
        handle.remove()
    both = attach(model, lerp(stream_of(model.config)).double()), attach(model, lerp(stream).double(), side="decoder")
    assert not torch.equal(model.encoder(**given).last_hidden_state, encoded)
    for handle in both:
        handle.remove()
    with pytest.raises(ValueError, match=r"^layers: layer 2 does not exist; the decoder has 2 layers, 0 … 1$"):
        attach(model, field(stream), layers=[2], side="decoder")


@pytest.mark.parametrize("use_reentrant", [False, True], ids=["", "reentrant"])
@pytest.mark.parametrize("model_type", [name for name in ALL if name not in NO_CHECKPOINTING])
def test_gradient_checkpointing(model_type: str, use_reentrant: bool) -> None:
    """Equal gradients, for two passes of two batches before their backward passes."""
    model = build(model_type)
    parts = parts_of(model)
    modulator = modulators_for(model_type)[-1](stream_of(model.config))
    attach(model, modulator)
    given = inputs_for(model_type)
    other = {name: tensor.flip(0) for name, tensor in given.items()}
    weight = torch.randn(32)

    def gradients() -> list[Tensor]:
        modulator.zero_grad()
        first, second = ((run(parts, **batch) * weight).mean() for batch in (given, other))
        first.backward()
        (3 * second).backward()
        return [parameter.grad.clone() for parameter in modulator.parameters() if parameter.grad is not None]

    plain = gradients()
    model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    parts.stack.training = True
    for block in parts.blocks:
        block.training = True  # only blocks that train are checkpointed; dropout below stays off
    runs: list[int] = []
    leaf = next(module for module in parts.blocks[1].modules() if not list(module.children()))
    leaf.register_forward_hook(lambda *_: runs.append(1))
    checkpointed = gradients()
    assert len(runs) == 4, "two passes, each with a second one in the backward pass"
    assert len(plain) == len(checkpointed) == len(list(modulator.parameters()))
    torch.testing.assert_close(checkpointed, plain, rtol=1e-4, atol=1e-6)


def test_mpnet_has_no_checkpointing() -> None:
    with pytest.raises(ValueError, match="does not support"):
        build("mpnet").activation_checkpointing_enable()


@torch.no_grad()
def test_of_a_stack_that_hands_nothing_on() -> None:
    """MPNet's passes are kept by thread until they end, whether they fail or not."""
    model = build("mpnet")
    parts, stream, given = parts_of(model), stream_of(model.config), inputs_for("mpnet")
    base = run(parts, **given)
    first = attach(model, lerp(stream), layers=[1])
    one = run(parts, **given)
    second = attach(model, field(stream))
    both = run(parts, **given)
    with second.disabled():
        assert torch.equal(run(parts, **given), one)
    twin = copy.deepcopy(model)
    broken = parts.blocks[2].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(parts, **given)
    broken.remove()
    assert not first._passes
    assert not second._passes
    assert torch.equal(run(parts, **given), both)

    def passes(active: bool) -> list[Tensor]:
        if active:
            return [run(parts, **given) for _ in range(10)]
        with first.disabled(), second.disabled():
            return [run(parts, **given) for _ in range(10)]

    with ThreadPoolExecutor(2) as threads:
        on, off = threads.map(passes, (True, False))
    assert all(torch.equal(out, both) for out in on)
    assert all(torch.equal(out, base) for out in off)
    first.remove()
    second.remove()
    assert torch.equal(run(parts, **given), base)
    assert torch.equal(run(parts_of(twin), **given), both)


@torch.no_grad()
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gemma3_text", "bert", "clip_vision_model"])
def test_attention_kernels(model_type: str) -> None:
    model = build(model_type)
    attach(model, field(stream_of(model.config)))
    parts, given, out = parts_of(model), inputs_for(model_type), {}
    for kernel in ("sdpa", "eager"):
        model.set_attn_implementation(kernel)
        out[kernel] = run(parts, **given)
    torch.testing.assert_close(out["eager"], out["sdpa"], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "backend"),
    [*((name, "eager") for name in ALL if name not in SEQ2SEQ), ("mpnet", "aot_eager"), ("llama", "aot_eager")],
)
def test_compiled_in_one_graph(model_type: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # beartype is nothing to compile
    model = build(model_type)
    parts, given = parts_of(model), inputs_for(model_type)
    base = run(parts, **given)
    modulator = modulators_for(model_type)[-1](stream_of(model.config))
    handle = attach(model, modulator)
    modulated = run(parts, **given)
    torch.compiler.reset()
    compiled: Any = torch.compile(parts.stack, fullgraph=True, backend=backend)
    options = {"use_cache": False} if model_type in CAUSAL else {}

    def out() -> Tensor:
        return compiled(**given, **options).last_hidden_state

    torch.testing.assert_close(out(), modulated, rtol=1e-4, atol=1e-4)
    out().square().mean().backward()
    assert all(parameter.grad is not None for parameter in modulator.parameters())
    with handle.disabled():
        torch.testing.assert_close(out(), base, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("check", ATTACHED, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", [lerp, pytest.param(field, marks=pytest.mark.slow)])
@pytest.mark.parametrize("model_type", [*MASKED, *CAUSAL])
def test_the_contract(model_type: str, kind: Any, check: Any) -> None:
    model = build(model_type)
    assert stream_of(model.config) == CONTRACT_STREAM
    check(kind, model)
