"""The status table of a handle says what is, at each moment."""

import json

import pytest
from transformers import T5Config, T5EncoderModel

from modulators import FieldModulator, LerpModulator, ResidualStream, attach

STREAM = ResidualStream(d_model=16, n_layers=2, vocab_size=30)


@pytest.fixture
def model() -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=30, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4)).eval()


def test_a_lerp_in_each_state(model: T5EncoderModel) -> None:
    handle = attach(model, LerpModulator(STREAM, n_geometric_dims=4, initial_alpha=0.2))
    summary = handle.summary()
    n = 30 * 4 + 16 * 4 + 2
    assert (summary.parameters, summary.trainable_parameters, summary.bytes) == (n, n, 4 * n)
    assert summary.alphas == [[pytest.approx(0.2)], [pytest.approx(0.2)]]
    assert (summary.state, summary.fused, summary.alpha_scale, summary.device) == ("active", False, 1.0, "cpu")
    with handle.disabled(), handle.scaled(0.5), handle.scaled(0.5):
        assert (handle.summary().state, handle.summary().alpha_scale) == ("disabled", 0.25)
        assert "α used times 0.25" in str(handle.summary())
    handle.fuse()
    assert handle.summary().fused
    # the table, and a copy of the alphas
    assert handle.summary().bytes == 4 * (n + 30 * 16 + 2)
    assert repr(handle) == f"<ModulatorHandle: LerpModulator on layers 0, 1, {n} parameters, α 0.2, fused, active>"
    handle.remove()
    assert handle.summary().state == "removed"
    assert json.loads(json.dumps(summary.as_dict()))["modulator"] == "LerpModulator"


def test_the_table(model: T5EncoderModel) -> None:
    modulator = FieldModulator(STREAM, initial_alpha=0.125)
    modulator.gate_projs.requires_grad_(False)
    handle = attach(model, modulator, layers=[1])
    summary = handle.summary()
    assert summary.trainable_parameters < summary.parameters == sum(p.numel() for p in modulator.parameters())
    lines = str(handle.summary()).splitlines()
    assert lines[0] == "FieldModulator: active, α used times 1, cpu"
    assert lines[2:] == ["layer    α k1    α k2    α k4", "    1  0.1250  0.1250  0.1250"]
    assert "\x1b" not in str(summary)
