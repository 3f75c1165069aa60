"""Attention as it is read, of every family: what transformers itself returns, and a model that is left as it was."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy as relative_entropy
from torch import Tensor

from modulant.backbones.families import parts_of
from modulant.backbones.opening import Backbone, open_model
from probes.attention.lens import Lens, divergence, unigram_of
from probes.attention.measure import MODEL, UNIFORM, measure_pass
from probes.attention.reading import attentions_of, decoder_inputs, forward, reading
from probes.attention.texts import Batch, batches_of, unigrams
from tests.probes.terrain.tokenizers import masking_tokenizer, word_tokenizer
from tests.tiny_families import ALL, CAUSAL, IMAGES, MASKED, SEQ2SEQ, build, inputs_for

LENGTH = 24  # beyond the windows of the tiny models


def opened(model_type: str) -> Backbone:
    model = build(model_type, head=model_type in {**SEQ2SEQ, **MASKED, **CAUSAL})
    return Backbone(model_type, model, parts_of(model))


def inputs_of(model_type: str) -> Tensor:
    inputs = inputs_for(model_type, length=LENGTH)
    if "pixel_values" in inputs:
        return inputs["pixel_values"]
    generator = torch.Generator().manual_seed(7)
    return torch.randint(4, 97, (2, LENGTH), generator=generator)


def read(backbone: Backbone, inputs: Tensor) -> dict[tuple[str, int], Tensor]:
    found: dict[tuple[str, int], Tensor] = {}

    def receive(name: str, layer: int, weights: Tensor, _visible: Tensor) -> None:
        found[name, layer] = weights

    with torch.inference_mode(), reading(backbone, attentions_of(backbone), range(3), receive):
        forward(backbone, inputs)
    return found


def hooks(model: torch.nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def expected(backbone: Backbone, inputs: Tensor) -> Iterator[tuple[str, int, Tensor]]:
    """What a forward pass with output_attentions returns, of a model that is eager for good."""
    model: Any = backbone.model
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    given: dict[str, Any] = {backbone.family.reads: inputs}
    if "seq2seq" in backbone.family.heads:
        given["decoder_input_ids"] = decoder_inputs(backbone, inputs)
    with torch.inference_mode():
        out = model(**given, output_attentions=True)
    model.set_attn_implementation(before)
    if "seq2seq" in backbone.family.heads:
        groups = {"": out.encoder_attentions, "decoder": out.decoder_attentions, "cross": out.cross_attentions}
    else:
        groups = {"": out.attentions}
    for name, layers in groups.items():
        for layer, weights in enumerate(layers):
            yield name, layer, weights


@pytest.mark.parametrize("model_type", ALL)
def test_attentions_are_those_of_a_forward_pass_that_returns_them(model_type: str) -> None:
    backbone, inputs = opened(model_type), inputs_of(model_type)
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    implementation = backbone.model.config._attn_implementation
    with torch.inference_mode():
        output = backbone.encode(inputs)
    n_hooks = hooks(backbone.model)
    found = read(backbone, inputs)
    assert hooks(backbone.model) == n_hooks
    theirs = list(expected(backbone, inputs))  # transformers' own hooks stay
    assert len(found) == len(theirs) == (9 if model_type in SEQ2SEQ else 3)
    for name, layer, weights in theirs:
        torch.testing.assert_close(found[name, layer], weights.double(), atol=2e-6, rtol=0)
        assert float((found[name, layer].sum(-1) - 1).abs().max()) < 1e-12
    # As it was: to the bit.
    assert backbone.model.config._attn_implementation == implementation
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.model.state_dict().items())
    with torch.inference_mode():
        assert torch.equal(backbone.encode(inputs), output)


@pytest.mark.parametrize("model_type", [*SEQ2SEQ, *MASKED, *CAUSAL])
def test_what_is_visible_is_what_has_weight(model_type: str) -> None:
    backbone, inputs = opened(model_type), inputs_of(model_type)
    attentions = {attention.name: attention for attention in attentions_of(backbone)}
    for (name, layer), weights in read(backbone, inputs).items():
        visible = attentions[name].visible(layer, *weights.shape[-2:])
        assert torch.equal((weights > 0).any(1).any(0), visible)
    windows = set(attentions[""].windows)
    sliding = {"modernbert": {None, 8}, "mistral": {16}, "gemma2": {None, 16}, "gemma3_text": {16}, "phi3": {16}}
    assert windows == sliding.get(model_type, {None})


@pytest.mark.parametrize("model_type", ["t5", "llama", "mpnet"])
def test_a_model_is_as_it_was_after_an_exception(model_type: str) -> None:
    backbone, inputs = opened(model_type), inputs_of(model_type)
    implementation, n_hooks = backbone.model.config._attn_implementation, hooks(backbone.model)

    def fail(*_: Any) -> None:
        assert backbone.model.config._attn_implementation == "eager"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), reading(backbone, attentions_of(backbone), [0], fail):
        forward(backbone, inputs)
    assert backbone.model.config._attn_implementation == implementation
    assert hooks(backbone.model) == n_hooks


def test_weights_beyond_what_is_visible_are_an_error() -> None:
    backbone = opened("mistral")
    backbone.model.config.sliding_window = 4  # which its mask follows, and the windows that were read before do not
    attentions = attentions_of(backbone)
    backbone.model.config.sliding_window = 16
    with pytest.raises(ValueError, match="do not sum to 1 over the keys"), torch.inference_mode():  # noqa: SIM117
        with reading(backbone, attentions, [0], lambda *_: None):
            forward(backbone, inputs_of("mistral"))


EVEN = torch.full((97,), 1 / 97).double().log()


@pytest.mark.parametrize("model_type", [*SEQ2SEQ, *MASKED, *CAUSAL])
def test_the_lens_after_the_last_layer_is_the_models_own_head(model_type: str) -> None:
    backbone, inputs = opened(model_type), inputs_of(model_type)
    asked = torch.tensor([20, 7]) if model_type in MASKED else None
    lens = Lens.of(backbone)
    assert lens is not None
    assert lens.masked == (asked is not None)
    with torch.inference_mode(), lens.stream(asked) as states:
        forward(backbone, inputs)
        seen, logits = lens.look(states, EVEN), lens.logits(states[-1])
        given = {"decoder_input_ids": decoder_inputs(backbone, inputs)} if model_type in SEQ2SEQ else {}
        places = torch.tensor([LENGTH - 1] * 2) if asked is None else asked
        theirs = backbone.model(input_ids=inputs, **given).logits[torch.arange(2), places]
        torch.testing.assert_close(logits, theirs, atol=1e-5, rtol=0)
    assert len(states) == 4
    # KL(p ‖ uniform) = ln V − H(p).
    torch.testing.assert_close(seen.unigram, math.log(97) - seen.entropy, atol=1e-5, rtol=0)
    assert seen.rank[:, -1].tolist() == [1, 1]
    assert seen.divergence[:, -1].abs().max() < 1e-6
    assert ((seen.commit >= 1) | (seen.rank[:, 0] == 1)).all()
    assert (seen.commit <= 3).all()


def test_the_lens_of_mini_is_its_own_head() -> None:
    backbone = open_model("mini", "seq2seq", dtype=torch.float64)  # logits of 20 are rounded to 1e-5 in fp32
    lens, inputs = Lens.of(backbone), torch.tensor([backbone.tokenizer.encode("a flower that opens at night")])
    assert lens is not None
    assert not lens.masked
    with torch.inference_mode():
        with lens.stream() as states:
            forward(backbone, inputs)
        theirs = backbone.model(input_ids=inputs, decoder_input_ids=decoder_inputs(backbone, inputs)).logits[:, -1]
        torch.testing.assert_close(lens.logits(states[-1]), theirs.float(), atol=1e-5, rtol=0)
    assert len(states) == 3
    assert float(theirs.std()) > 1


@pytest.mark.parametrize("model_type", [*MASKED, "llama", "t5", "vit"])
def test_what_has_no_head_has_no_lens(model_type: str) -> None:
    model = build(model_type, head=False)
    assert Lens.of(Backbone(model_type, model, parts_of(model))) is None


def test_divergences_have_closed_forms() -> None:
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.25, 0.5, 0.25])
    assert float(divergence(p.log(), q.log())) == pytest.approx(0.5 * math.log(2))
    assert float(divergence(q.log(), q.log())) == 0
    # Of Gaussian logits against their mean: what SciPy gives.
    first, second = torch.randn(2, 5, 40, generator=torch.Generator().manual_seed(1)).double().log_softmax(-1)
    np.testing.assert_allclose(divergence(first, second), relative_entropy(first.exp(), second.exp(), axis=-1))


def test_unigrams_leave_something_to_what_is_in_no_text() -> None:
    counts = torch.tensor([6, 3, 1, 0, 0, 0, 0, 0])
    found = unigram_of(counts).exp()
    assert found[:3].tolist() == pytest.approx([6 / 13, 3 / 13, 1 / 13])
    assert found[3:].tolist() == pytest.approx([3 / 13 / 5] * 5)
    assert float(found.sum()) == pytest.approx(1)
    assert unigram_of(torch.tensor([3, 1])).exp().tolist() == [0.75, 0.25]  # everything is in them
    assert unigram_of(torch.zeros(4)).exp().tolist() == [0.25] * 4
    batches = [Batch(torch.arange(2), torch.tensor([[2, 5, 1], [2, 5, 6]]), None)]
    assert unigrams(batches, [1, 2], 8).exp().argsort(descending=True)[:2].tolist() == [5, 6]


def test_figures_of_a_masked_word_are_those_of_its_query(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where queries are gone through in blocks; figures of the text as it stands do not change."""
    backbone, inputs = opened("bert"), inputs_of("bert")
    asked = torch.tensor([20, 7])
    masked = inputs.scatter(1, asked[:, None], 4)
    batch = Batch(torch.arange(2), inputs, None, asked, masked)
    plain = measure_pass(backbone, [Batch(torch.arange(2), inputs, None)], [0, 2], 1, "reading", EVEN)
    assert plain.seen is plain.masked is None  # nothing is masked
    monkeypatch.setattr("probes.attention.reduce._NUMBERS", 5 * 2 * 4 * LENGTH)
    found = measure_pass(backbone, [batch], [0, 2], 1, "reading", EVEN)
    assert found.masked is not None
    assert found.seen is not None
    weights = read(backbone, masked)["", 2][torch.arange(2), :, asked]  # (B, heads, keys)
    own = -torch.xlogy(weights, weights).sum(-1)
    torch.testing.assert_close(found.masked["source_entropy_last"][:, 1], own)
    torch.testing.assert_close(found.masked["sink_last"][:, 1], weights[..., 0])
    for name, values in plain.stacks[""].of[MODEL].items():
        torch.testing.assert_close(found.stacks[""][name], values, equal_nan=True)
    with torch.inference_mode():
        logp = backbone.model(input_ids=masked).logits[torch.arange(2), asked].log_softmax(-1)
    torch.testing.assert_close(found.seen.entropy[:, -1], -(logp.exp() * logp).sum(-1).double(), atol=1e-5, rtol=0)


def test_the_last_word_is_masked() -> None:
    tokenizer = masking_tokenizer()
    backbone = Backbone("bert", *_parts("bert", len(tokenizer)))
    texts = ["red dog .", "red dog red", "dog ."]
    (three, two) = batches_of(backbone, tokenizer, texts)
    assert three.asked is not None
    assert three.masked is not None
    assert three.asked.tolist() == [2, 3]  # behind [CLS]
    changed = three.masked != three.inputs
    assert changed.nonzero().tolist() == [[0, 2], [1, 3]]
    assert set(three.masked[changed].tolist()) == {tokenizer.mask_token_id}
    assert two.asked is not None
    assert two.asked.tolist() == [1]
    for model_type, other in (("llama", tokenizer), ("bert", word_tokenizer())):  # makes next tokens; has no mask
        (batch,) = batches_of(Backbone(model_type, *_parts(model_type, len(tokenizer))), other, ["red dog red"])
        assert batch.asked is batch.masked is None


def _parts(model_type: str, vocab_size: int) -> tuple[Any, Any]:
    model = build(model_type, vocab_size=vocab_size)
    return model, parts_of(model)


@pytest.mark.parametrize("model_type", ["t5", "bert", "llama", "gemma2", *IMAGES])
def test_figures_of_a_pass_are_those_of_its_attention(model_type: str) -> None:
    backbone, inputs = opened(model_type), inputs_of(model_type)
    batches = [Batch(torch.tensor([1]), inputs[:1], None), Batch(torch.tensor([0]), inputs[1:], None)]
    found = measure_pass(backbone, batches, [0, 2], 1, "reading")
    attention = read(backbone, inputs)
    for name, stack in found.stacks.items():
        for i, layer in enumerate((0, 2)):
            weights = attention[name, layer].flip(0)
            n = weights.shape[-1]
            raw = -torch.xlogy(weights, weights).sum(-1).mean(-1)
            torch.testing.assert_close(stack["source_entropy"][:, i], raw)
            causal, window = stack.attention.causal and not stack.attention.cross, stack.attention.windows[layer]
            if name != "cross":
                rows = torch.arange(1, n if window is None else min(n, window))
                torch.testing.assert_close(stack["sink"][:, i], weights[..., rows, 0].mean(-1))
            if causal and window is None:
                counts = torch.arange(2, n + 1).double()
                own = -torch.xlogy(weights, weights).sum(-1)[..., 1:] / counts.log()
                torch.testing.assert_close(stack["entropy"][:, i], own.mean(-1))
                torch.testing.assert_close(stack["entropy_last"][:, i], own[..., -1])
        even = stack.of[UNIFORM]
        torch.testing.assert_close(even["entropy"], torch.ones_like(even["entropy"]))
        assert even["head_divergence"].abs().max() < 1e-12
        assert set(stack.of[MODEL]) == set(even)
    assert found.lengths.tolist() == [attention["", 0].shape[-1]] * 2


def test_blocks_of_queries_give_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, inputs = opened("gemma2"), inputs_of("gemma2")
    batches = [Batch(torch.tensor([0, 1]), inputs, None)]
    whole = measure_pass(backbone, batches, [0, 1], 1, "reading")
    monkeypatch.setattr("probes.attention.reduce._NUMBERS", 5 * 2 * 4 * LENGTH)
    parts = measure_pass(backbone, batches, [0, 1], 1, "reading")
    for whose, figures in whole.stacks[""].of.items():
        for name, values in figures.items():
            torch.testing.assert_close(parts.stacks[""].of[whose][name], values, equal_nan=True)
