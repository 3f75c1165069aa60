"""Series along tokens of SmolLM2, beside what an independent NumPy program measured on another passage of 318 tokens.

Its figures were −0.12, 0.01, 0.02, 0.20, 0.25, 0.26, 0.29 of lag-1 at the hidden states 0, 5, 10, …, 25, 29; with
shuffled input 0.00, 0.01, 0.01, 0.09, 0.13, 0.23, 0.40; concentrations of contexts as below.
"""

import json
import os
from pathlib import Path

import pytest
import torch

import probe
from modulant.backbones import open_model
from modulant.geometry import spectral_concentration
from probes.spectra.attention import last_attention
from probes.spectra.texts import passages_of

pytestmark = [pytest.mark.weights, pytest.mark.timeout(600)]

CONCENTRATION = {0: 0.078, 5: 0.011, 10: 0.024, 15: 0.0023, 20: 0.0024, 25: 0.0027, 29: 0.042}


def test_concentration_is_the_share_of_the_largest_dimension() -> None:
    backbone = open_model(os.environ["TEST_WEIGHTS"])
    text = passages_of(backbone, backbone.tokenizer, None).texts[0]
    order = torch.randperm(576, generator=torch.Generator().manual_seed(0))
    for layer, last in last_attention(backbone, text, list(CONCENTRATION)).items():
        context = last.contexts.mean(0)
        value = float(spectral_concentration(context))
        assert CONCENTRATION[layer] / 1.6 < value < CONCENTRATION[layer] * 1.6, layer
        assert float(spectral_concentration(context[order])) == pytest.approx(value, rel=0.2), layer
        if layer in (15, 20, 25):
            assert float(context.square().max() / context.square().sum()) > 0.97, layer


def test_slow_drift_is_there_with_shuffled_tokens_too(tmp_path: Path) -> None:
    words = [os.environ["TEST_WEIGHTS"], "--only", "tokens,dimensions", "--layers", "4,9,14,19,24,29"]
    assert probe.main(["spectra", *words, "--output", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "report.json").read_text())["figures"]
    assert -0.12 < figures["embedded/lag1"] < -0.03
    own = [figures[f"layer_{layer:02d}/lag1"] for layer in (4, 9, 14, 19, 24, 29)]
    shuffled = [figures[f"layer_{layer:02d}/lag1_input_shuffled"] for layer in (4, 9, 14, 19, 24, 29)]
    assert own == pytest.approx([0.03, 0.06, 0.21, 0.23, 0.20, 0.22], abs=0.03)
    assert shuffled == pytest.approx([0.02, 0.02, 0.08, 0.11, 0.11, 0.22], abs=0.03)
    for layer in (4, 9, 14, 19, 24, 29):
        assert figures[f"layer_{layer:02d}/lag1_rows_shuffled"] == pytest.approx(-0.0033, abs=1e-3)
    assert figures["layer_14/lag1_beyond_input_p_family"] < 0.05 < figures["layer_29/lag1_beyond_input_p_family"]
    assert figures["embedded/slope"] > 0 > -0.25 > figures["layer_29/slope"]
    assert figures["dimensions/p"] > 0.05
