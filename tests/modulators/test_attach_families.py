"""A modulator on every known family: the same promises as on a T5."""

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from transformers import LlavaConfig, LlavaForConditionalGeneration

from modulant.backbones.families import Parts, parts_of
from modulators import FieldModulator, LerpModulator, Modulator, ResidualStream, attach, stream_of
from modulators.contract.attached import ATTACHED
from modulators.contract.cases import STREAM as CONTRACT_STREAM
from tests.tiny_families import ALL, CAUSAL, MASKED, SEQ2SEQ, TEXT, build, config_of, inputs_for

NO_CHECKPOINTING = ("mpnet",)  # transformers has none for it


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
@pytest.mark.parametrize("model_type", TEXT)
def test_observed_and_inspected(model_type: str) -> None:
    """Padding does not count in what is observed, on either side of a text."""
    model = build(model_type)
    parts, seen = parts_of(model), list[Tensor]()
    parts.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    modulator = lerp(stream_of(model.config))
    with torch.no_grad():
        modulator.geometric_embed.weight[0] *= 1000  # far off: padding is pushed further than tokens
    handle = attach(model, modulator, layers=[0, 2])
    parts.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for padding in ("right", "left"):
        seen.clear()
        given = inputs_for(model_type, padding)
        out = run(parts, **given)
        before, after = seen
        with handle.observed() as figures:
            assert torch.equal(run(parts, **given), out)
        push = (after - before).norm(dim=-1) / before.norm(dim=-1)
        real = given["attention_mask"].bool()
        torch.testing.assert_close(figures["lerp/layer_00/push"], push[real].mean(), rtol=1e-5, atol=1e-6)
        assert float(push.mean() / push[real].mean()) > 1.1
        assert "lerp/layer_01/push" not in figures
    inspection = handle.inspect([5, 6, 7])
    assert inspection.moved.shape == (3, 2)
    assert bool((inspection.moved > 0).all() and (inspection.drift > 0).all())


@torch.no_grad()
def test_observed_behind_a_cache() -> None:
    """A mask is of the tokens in the cache too; the stream is of the new ones alone."""
    model = build("llama", head=False)
    given, new = inputs_for("llama", padding="left"), torch.tensor([[5], [6]])
    modulator = lerp(stream_of(model.config))
    modulator.geometric_embed.weight[6] *= 1000
    handle, pushes = attach(model, modulator), []
    cache = model(**given).past_key_values
    mask = torch.cat([given["attention_mask"], torch.ones_like(new)], dim=1)
    with handle.observed() as figures:
        model(new, attention_mask=mask, past_key_values=copy.deepcopy(cache))
        for hidden in ("last", "first"):
            one = mask.clone()
            one[0 if hidden == "last" else 1, -1] = 0  # as if that row's new token were padding
            both = dict(figures)
            model(new, attention_mask=one, past_key_values=copy.deepcopy(cache))
            pushes.append(figures["lerp/layer_00/push"])
            figures.update(both)
    torch.testing.assert_close(figures["lerp/layer_00/push"], torch.stack(pushes).mean(), rtol=1e-5, atol=1e-6)
    assert float(pushes[0] / pushes[1]) > 1.1


def test_what_cannot_be_inspected() -> None:
    for model, side in ((build("t5"), "decoder"), (build("vit"), None)):
        handle = attach(model, field(stream_of(model.config, side)), side=side)
        with pytest.raises(ValueError, match=r"^inspect: the stack must read a text alone"):
            handle.inspect([5, 6])


@torch.no_grad()
@pytest.mark.parametrize("kind", [lerp, pytest.param(field, marks=pytest.mark.slow)])
@pytest.mark.parametrize("model_type", [*CAUSAL, *SEQ2SEQ])
def test_generation_with_a_cache_is_that_without(model_type: str, kind: Any) -> None:
    """Greedily and by beams, padded on the left; of a T5 its decoder is modulated."""
    side = "decoder" if model_type in SEQ2SEQ else None
    model = build(model_type)
    given = inputs_for(model_type, padding="left", length=12)
    handle = attach(model, kind(stream_of(model.config, side)), side=side)

    def written(use_cache: bool = True, **how: Any) -> Any:
        return model.generate(
            **given,
            max_new_tokens=9,
            min_new_tokens=9,
            do_sample=False,
            use_cache=use_cache,
            output_logits=True,
            return_dict_in_generate=True,
            **how,
        )

    cached, whole = written(), written(use_cache=False)
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(whole.logits), rtol=1e-4, atol=1e-5)
    with handle.disabled():
        base = written()
    assert not torch.allclose(torch.stack(cached.logits), torch.stack(base.logits), atol=1e-3)
    beams = [written(use_cache, num_beams=3).sequences for use_cache in (True, False)]
    assert torch.equal(*beams)
    steps: list[Tensor] = []
    with handle.observed() as figures:
        watch = parts_of(model, side).stack.register_forward_hook(lambda *_: steps.extend(figures.values()))
        if side is None:  # a cache of fixed length, whose masks have four dimensions, and differ by the kind of layer
            static = written(cache_implementation="static")
            torch.testing.assert_close(torch.stack(static.logits), torch.stack(whole.logits), rtol=1e-4, atol=1e-5)
        else:
            written()
    watch.remove()
    assert len(steps) >= 9 * 3, "at every step at every layer"
    assert bool(torch.stack(steps).isfinite().all())
    handle.remove()
    assert torch.equal(torch.stack(written().logits), torch.stack(base.logits))


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
@pytest.mark.parametrize("model_type", [*MASKED, "llama"])
def test_embeddings_instead_of_ids(model_type: str) -> None:
    model = build(model_type, head=False)
    ids = inputs_for(model_type)["input_ids"][:1]
    embeds = model.get_input_embeddings()(ids)
    handle = attach(model, lerp(stream_of(model.config)))
    with pytest.raises(ValueError, match=r"^LerpModulator needs token_ids"):
        model(inputs_embeds=embeds)
    with handle.disabled():
        model(inputs_embeds=embeds)
    assert torch.equal(model(ids).last_hidden_state, model(input_ids=ids).last_hidden_state)


def test_images_have_no_tokens() -> None:
    model = build("vit")
    attach(model, LerpModulator(stream_of(model.config), n_geometric_dims=4))
    with pytest.raises(ValueError, match=r"^LerpModulator needs token_ids"):
        model(inputs_for("vit")["pixel_values"])


@torch.no_grad()
def test_the_text_model_of_several_modalities() -> None:
    """Found inside; it gets embeddings, so a modulator that looks tokens up does not work there."""
    text, vision = config_of("llama"), config_of("clip_vision_model")
    config = LlavaConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), image_token_index=96)
    model = LlavaForConditionalGeneration(config).eval()
    given = inputs_for("llama")
    base = model(**given).logits
    handle = attach(model, field(stream_of(config)))
    assert parts_of(model).stack is model.model.language_model
    assert not torch.equal(model(**given).logits, base)
    with handle.disabled():
        assert torch.equal(model(**given).logits, base)
    handle.remove()
    attach(model, lerp(stream_of(config)))
    with pytest.raises(ValueError, match=r"^LerpModulator needs token_ids"):
        model(**given)
    seen = attach(model, field(stream_of(config, "vision")), side="vision")
    assert parts_of(model, "vision").stack is model.model.vision_tower
    seen.remove()


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


def test_what_attach_refuses() -> None:
    model = build("bert")
    with pytest.raises(ValueError, match=r"^attach: side is 'decoder'; of a bert it must be 'encoder', or left out$"):
        attach(model, field(stream_of(model.config)), side="decoder")
    with pytest.raises(ValueError, match=r"^FieldModulator was built for width 24, got 32$"):
        attach(model, field(ResidualStream(24, 3, 97)))
    model.config.model_type = "segformer"
    with pytest.raises(ValueError, match=r"^attach: 'segformer' is no known family of transformers; known are t5, mt5"):
        attach(model, field(ResidualStream(32, 3, 97)))
    pair = nn.ModuleList([build("bert"), build("bert")])
    pair.config = pair[0].config
    with pytest.raises(ValueError, match=r"^attach: a ModuleList has 2 modules that are a BertModel with "):
        attach(pair, field(ResidualStream(32, 3, 97)))
    head = nn.Linear(2, 2)
    head.config = pair[0].config
    with pytest.raises(ValueError, match=r"^attach: a Linear has 0 modules that are a BertModel .* it must have one$"):
        attach(head, field(ResidualStream(32, 3, 97)))
