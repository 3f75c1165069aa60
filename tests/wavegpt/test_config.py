"""Configurations: what is refused, in which words, and without torch."""

import json
import subprocess
import sys
from typing import Any

import pytest

from wavegpt import PRESETS, AnnealConfig, EmbeddingConfig, WaveConfig, preset


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"attention": {"kind": "ropee"}}, "attention.kind is 'ropee'"),
        ({"attention": {"terns": "full"}}, "the nearest is attention.terms"),
        ({"embedding": {"anneal": {"steps": -1}}}, "embedding.anneal.steps is -1"),
        ({"embedding": {"omega_range": [3, 1]}}, "0 < low < high"),
        ({"embedding": {"kind": "table", "anneal": {"steps": 10}}}, "it needs kind: wave"),
        ({"attention": {"normalise": "energy", "impl": "sdpa"}}, "fused attention is a softmax"),
        ({"attention": {"normalise": "energy", "impl": "chunked"}}, "no finite feature map"),
        ({"attention": {"phase": "source", "impl": "sdpa"}}, "ΔωΔt is no difference"),
        ({"attention": {"phase": "source", "normalise": "sum", "impl": "chunked"}}, "ΔωΔt is no difference"),
        ({"attention": {"normalise": "sum", "terms": "cross"}}, "needs terms: full"),
        ({"attention": {"kernel": "exp"}}, "needs pure_wave"),
        ({"attention": {"kind": "pure_wave", "kernel": "identity", "normalise": "sum"}}, "must be sqrt_t"),
        ({"d_model": 30, "heads": 4}, "must be a multiple of heads"),
        ({"d_model": 12, "heads": 4}, "needs an even width"),
        ({"attention": {"waves": 40}}, "room for 24"),
        ({"loss": {"harmonic": 0.1}, "embedding": {"amplitude": "fixed"}}, "no harmonic amplitude is learned"),
        ({"loss": {"phase": 0.1}, "embedding": {"kind": "table"}, "attention": {"kind": "rope"}}, "no phasors"),
        ({"optimizer": {"project": {"side": "gradient"}}}, "must be a rank"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, "two numbers in [0, 1)"),
        ({"dropout": float("nan")}, "dropout is nan"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as error:
        WaveConfig(**given)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", PRESETS)
def test_a_configuration_goes_through_json(name: str) -> None:
    config = preset(name, vocab_size=100)
    assert WaveConfig(**json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="nearest is full_physics"):
        preset("ful_physics")


def test_remarks() -> None:
    assert "identity" in preset("source/rgd_only").remarks[0]
    assert "alias" in WaveConfig(embedding=EmbeddingConfig(waves=2)).remarks[0]
    assert preset("wave").remarks == ()


def test_annealing_is_a_function_of_the_step() -> None:
    linear, cosine = AnnealConfig(steps=3000), AnnealConfig(steps=3000, shape="cosine")
    assert [linear.ratio(step) for step in (0, 750, 1500, 3000, 10**6)] == [1, 0.75, 0.5, 0, 0]
    assert [cosine.ratio(step) for step in (0, 1500, 3000)] == pytest.approx([1, 0.5, 0], abs=1e-15)
    assert AnnealConfig().ratio(0) == 0
    assert AnnealConfig(steps=10, start=0.6, end=0.2).ratio(5) == pytest.approx(0.4)


def test_configurations_import_no_torch() -> None:
    code = "import sys, wavegpt; wavegpt.preset('wave'); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
