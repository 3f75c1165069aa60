"""Parts of probe.py spectra: what is caught of a pass in every family, phases of heads, the lens, order of tokens."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from modulant.backbones.families import parts_of
from modulant.backbones.opening import Backbone
from modulant.geometry import analytic_signal, frequencies_of
from probes.findings import Findings
from probes.spectra.attention import last_attention
from probes.spectra.dimensions import measure_dimensions
from probes.spectra.heads import BANDS, head_series, measure_heads
from probes.spectra.lens import coherence, frequencies_by_rank
from probes.spectra.passes import EMBEDDED, as_read, output_matrix, output_weights, read, stacks_of
from probes.spectra.texts import Text
from probes.spectra.tokens import TokenFigures, along, measure_text
from tests.tiny_families import CAUSAL, MASKED, SEQ2SEQ, build

FAMILIES = (*SEQ2SEQ, *MASKED, *CAUSAL, "clip_text_model")
DECODERS = tuple(f"{model_type} decoder" for model_type in SEQ2SEQ)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def backbone_of(stack: str) -> Backbone:
    """Of a model type, or of its ``decoder``."""
    model_type, _, decoder = stack.partition(" ")
    model = build(model_type, head=False)
    stacks = stacks_of(Backbone(model_type, model, parts_of(model)))
    assert list(stacks) == (["", "decoder/"] if model_type in SEQ2SEQ else [""])
    return stacks["decoder/" if decoder else ""]


def hidden_states(backbone: Backbone, text: Text) -> Any:
    """Of a whole pass that returns them."""
    if not backbone.family.needs_encoder:
        return backbone.parts.stack(input_ids=text.ids[None], output_hidden_states=True).hidden_states
    behind = torch.cat([torch.tensor([0]), text.ids[:-1]])[None]  # the start token, which is 0, and not the end
    out = backbone.model(input_ids=text.ids[None], decoder_input_ids=behind, output_hidden_states=True)
    return out.decoder_hidden_states


def positions(backbone: Backbone, text: Text) -> Tensor:
    """Where a stack reads the measured tokens."""
    return text.measured + (1 if backbone.family.needs_encoder else 0)


def text_of(length: int = 30) -> Text:
    """The last token is special, as [SEP] is."""
    ids = torch.randint(4, 97, (length,), generator=torch.Generator().manual_seed(5))
    special = torch.zeros(length, dtype=torch.bool)
    special[-1] = True
    return Text(ids, special)


def test_shuffled_tokens_are_the_same_tokens() -> None:
    text = text_of()
    other = text.shuffled(torch.Generator().manual_seed(1))
    assert sorted(other.ids.tolist()) == sorted(text.ids.tolist())
    assert (other.ids != text.ids).sum() > 15
    assert other.ids[[0, -1]].tolist() == text.ids[[0, -1]].tolist()
    assert text.measured.tolist() == list(range(1, 29))


@pytest.mark.parametrize("stack", [*FAMILIES, *DECODERS])
def test_states_and_heads_are_the_models(stack: str) -> None:
    """States are the stream's; outputs of heads add up to what the output matrix gives; the model stays as it was."""
    backbone, text = backbone_of(stack), text_of()
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    states: dict[int, Tensor] = {}
    mixed: dict[int, Tensor] = {}
    whole: dict[int, Tensor] = {}
    handles = [
        output_matrix(backbone, layer).register_forward_hook(
            lambda _m, _i, output, layer=layer: whole.__setitem__(layer, output[0])
        )
        for layer in range(3)
    ]
    read(backbone, text, [0, 1, 2], states.__setitem__, mixed.__setitem__)
    for handle in handles:
        handle.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in backbone.parts.stack.modules())
    places = positions(backbone, text)
    assert as_read(backbone, text).ids[places].tolist() == text.ids[text.measured].tolist()
    with torch.inference_mode():
        hidden = hidden_states(backbone, text)
    for layer, place in ((EMBEDDED, 0), (0, 1), (1, 2)):  # the last may be after the norm
        torch.testing.assert_close(states[layer], hidden[place][0, places])
    for layer in range(3):
        weights = output_weights(backbone, layer)
        assert len(weights) == 4
        matrix = output_matrix(backbone, layer)
        bias = matrix.bias if getattr(matrix, "bias", None) is not None else 0.0
        added = torch.einsum("thw,hwd->td", mixed[layer], weights) + bias
        torch.testing.assert_close(added, whole[layer][places], rtol=1e-4, atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.model.state_dict().items())


def test_hooks_are_removed_after_an_error() -> None:
    backbone = backbone_of("llama")

    def fail(_layer: int, _states: Tensor) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        read(backbone, text_of(), [1], fail, fail)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in backbone.parts.stack.modules())


def test_a_token_that_a_decoder_does_not_read_is_not_measured() -> None:
    """A text without an end: its last token would be the next one."""
    backbone, text = backbone_of("t5 decoder"), Text(text_of().ids, torch.zeros(30, dtype=torch.bool))
    states: dict[int, Tensor] = {}
    read(backbone, text, [0], states.__setitem__)
    assert len(text.measured) == 29
    assert len(states[0]) == 28


@pytest.mark.parametrize("stack", [*FAMILIES, *DECODERS])
def test_attention_of_the_last_token(stack: str) -> None:
    backbone, text = backbone_of(stack), text_of()
    kernel = backbone.parts.stack.config._attn_implementation
    found = last_attention(backbone, text, [0, 2])
    assert backbone.parts.stack.config._attn_implementation == kernel
    assert found[0].attention.shape == (4, 30)
    again: dict[int, Tensor] = {}
    read(backbone, text, [], lambda layer, states: again.update({layer: states}))
    torch.testing.assert_close(found[0].states[positions(backbone, text)], again[EMBEDDED])
    if backbone.family.needs_encoder:  # which reads the special one no more
        assert float(found[2].attention[:, -1].min()) > 0
    elif backbone.family.causal:  # the last token of the text is before the special one
        assert float(found[2].attention[:, -1].abs().max()) == 0
        assert float(found[2].attention[:, -2].min()) > 0
    torch.testing.assert_close(found[2].contexts[1], found[2].attention[1] @ found[2].states)


def test_the_kernel_is_set_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = backbone_of("bert")
    kernel = backbone.parts.stack.config._attn_implementation
    with pytest.raises(IndexError):
        last_attention(backbone, Text(torch.tensor([500]), torch.tensor([False])), [0])  # no such token
    assert backbone.parts.stack.config._attn_implementation == kernel != "eager"


def test_the_series_of_a_head_is_its_first_component() -> None:
    mixed, weights = noise(50, 2, 6), noise(2, 6, 20, seed=1)
    found = head_series(mixed, weights)
    for head in range(2):
        output = (mixed[:, head] @ weights[head]).double()
        u, s, _ = torch.linalg.svd(output - output.mean(0), full_matrices=False)
        series = u[:, 0] * s[0]
        line = torch.arange(50.0, dtype=torch.float64)
        wanted = series.numpy() - np.polyval(np.polyfit(line, series.numpy(), 1), line)
        sign = np.sign(wanted @ found[head].numpy())
        np.testing.assert_allclose(sign * found[head].numpy(), wanted, atol=1e-3)


def test_heads_that_share_a_wave_agree_in_its_band() -> None:
    weights, generator = noise(4, 6, 20, seed=1), torch.Generator()
    alone = measure_heads(noise(300, 4, 6), weights, generator.manual_seed(0))
    wave = analytic_signal(noise(300, seed=4), (0.08, 0.15)).real[:, None, None] * noise(1, 4, 6, seed=3).sign()
    together = measure_heads(noise(300, 4, 6) + 4 * wave, weights, generator.manual_seed(0))
    for band in BANDS:
        z = {}
        for name, found in (("alone", alone), ("together", together)):
            value, draws = found.ppc[band], found.surrogates[band]
            assert value is not None
            assert len(draws) == 200
            z[name] = (value - float(draws.mean())) / float(draws.std())
        assert abs(z["alone"]) < 4, band
        assert (z["together"] > 8) == (band == "middle"), (band, z)
    assert together.ppc["middle"] == pytest.approx(1, abs=0.15)
    assert alone.cosine == pytest.approx(0, abs=0.05)
    same = measure_heads(noise(60, 1, 6).expand(60, 3, 6), weights[:1].expand(3, 6, 20), None)
    assert same.cosine == pytest.approx(1)
    assert same.ppc == {"low": None, "middle": None, "high": pytest.approx(1)}  # 60 tokens are too few for the others


def test_the_lens_is_its_formula() -> None:
    assert frequencies_by_rank(torch.tensor([0, 99]), 99).tolist() == [10, 0.5]
    assert frequencies_by_rank(torch.tensor([0, 99]), 99, reverse=True).tolist() == [0.5, 10]
    a, f = np.array([0.5, 0.3, 0.2]), np.array([2.0, 7.0, 0.5])
    t = np.arange(200) / 100
    waves = np.array([
        sum(np.sin(2 * np.pi * h * f[i] * t + 2 * np.pi * i / 3) / h for h in (1, 2, 3, 4)) for i in range(3)
    ])  # fmt: skip
    wanted = (np.abs(a @ waves) / (a @ np.abs(waves))).mean()
    assert float(coherence(torch.tensor(a), torch.tensor(f))) == pytest.approx(wanted, abs=1e-12)
    assert coherence(torch.tensor(a), torch.tensor(np.stack([f, f[::-1].copy()]))).shape == (2,)


def figures_of(series: dict[int, list[tuple[Tensor, Tensor]]]) -> tuple[Findings, Any]:
    """Layer → texts, each with its states and those with its tokens shuffled."""
    found = Findings()
    measured = {
        layer: {
            variant: [
                measure_text(states, [along(other, variant, 192)], variant, 192, seed)
                for seed, (states, other) in enumerate(texts)
            ]
            for variant in ("", "unit/")
        }
        for layer, texts in series.items()
    }
    figures = TokenFigures(found, "", 192, 1)
    figures.add(measured)
    return found, figures


def smooth(states: Tensor) -> Tensor:
    return torch.cat([states[:1], 0.5 * states[:-1] + states[1:]])


def test_order_is_found_where_it_is() -> None:
    """Layer 0 is noise; the rows of 1 follow on each other in the text alone; those of 2 also with shuffled tokens."""
    white = [(noise(180, 8, seed=i), noise(180, 8, seed=20 + i)) for i in range(8)]
    found, figures = figures_of(
        {
            0: white,
            1: [(smooth(states), other) for states, other in white],
            2: [(smooth(states), smooth(other)) for states, other in white],
        }
    )
    value = found.figures
    for variant in ("", "unit/"):
        layers = [f"layer_{layer:02d}/{variant}lag1" for layer in range(3)]
        assert [value[name] for name in layers] == pytest.approx([0, 0.4, 0.4], abs=0.06)
        assert [value[f"{name}_p_family"] <= 0.05 for name in layers] == [False, True, True]
        assert [value[f"{name}_beyond_input_p_family"] <= 0.05 for name in layers] == [False, True, False]
        for name in layers:  # of second order: the surrogate has it too
            assert value[f"{name}_phase_randomised"] == pytest.approx(value[name], abs=0.03)
            assert value[f"{name}_rows_shuffled"] == pytest.approx(-1 / 180, abs=2e-3)
    assert value["layer_01/lag1_beyond_input_p_family"] == 2 / 2**8
    low, high = figures.intervals["layer_01/lag1_beyond_input"]
    assert 0.3 < low < 0.4 < high < 0.5
    assert value["layer_01/slope"] < -0.3
    assert value["layer_00/centroid"] == pytest.approx(0.25, abs=0.01)
    assert len(figures.curves["layer_01"]["observed"]) == len(frequencies_of(192))


def test_a_single_text_has_no_interval() -> None:
    found, figures = figures_of({0: [(noise(180, 8), noise(180, 8, seed=9))]})
    assert found.figures["layer_00/lag1_beyond_input_p_family"] is None
    assert found.reasons["layer_00/lag1_beyond_input_p_family"] == "a single text"
    assert not figures.intervals


def test_dimensions_with_an_order_are_told_from_permuted_ones() -> None:
    """Waves along the dimensions, which no model has."""
    found = Findings()
    waves = torch.sin(2 * math.pi * 3 * torch.arange(64.0) / 64 + torch.arange(16.0)[:, None])
    measure_dimensions({0: [waves + 0.3 * noise(16, 64)]}, found, "", 1)
    assert found.figures["dimensions/p"] == 1 / 1000
    measure_dimensions({0: [noise(16, 64)], 1: [noise(16, 64, seed=2)]}, found, "", 1)
    assert found.figures["dimensions/p"] > 0.05
