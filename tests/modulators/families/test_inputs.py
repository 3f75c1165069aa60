"""A modulator on every known family, by what the model reads: padding, a cache, embeddings, images; and refusals."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlavaConfig, LlavaForConditionalGeneration

from modulant.backbones.families import parts_of
from modulators import LerpModulator, ResidualStream, attach, stream_of
from tests.modulators.families.passes import field, lerp, run
from tests.tiny_families import CAUSAL, MASKED, SEQ2SEQ, TEXT, build, config_of, inputs_for


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
