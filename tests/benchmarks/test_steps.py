"""The arithmetic of what is compared with, and slopes of growth. No time is asserted."""

import pytest
import torch

from benchmarks.steps.growth import Curve
from benchmarks.steps.notebook import PlainField
from benchmarks.ways import Through, drawn_lengths, modulated
from modulators import FieldModulator, ResidualStream


def curve(*turns: list[float]) -> Curve:
    return Curve("batch", "seconds", [4, 8, 16], turns, str)


def test_slope_of_a_power_law() -> None:
    slope = curve([3.0, 12.0, 48.0], [5.0, 10.0, 20.0], [5.0, 10.0, 20.0]).slope()
    assert (slope.low, slope.middle, slope.high) == pytest.approx((1, 1, 2))
    one = curve([1.0, 2.0, 8.0]).slope()  # counted: how flat and how steep its steps are
    assert (one.low, one.middle, one.high) == pytest.approx((1, 1.5, 2))


@pytest.mark.parametrize(
    ("values", "said"),
    [([1.0, 2.0, 4.0], "linear"), ([1.0, 1.2, 1.4], "less than linear"), ([1.0, 4.0, 16.0], "more than linear")],
)
def test_what_is_linear(values: list[float], said: str) -> None:
    assert curve(values).verdict() == said


def test_the_notebooks_field_is_the_field() -> None:
    torch.manual_seed(0)
    field = FieldModulator(ResidualStream(16, 2, 50), initial_alpha=0.2)
    plain, residual = PlainField(field), torch.randn(2, 5, 16)
    for layer in range(2):
        torch.testing.assert_close(plain(residual, layer), field(residual, layer), rtol=1e-4, atol=1e-5)


def test_the_floor_asks_for_a_gradient_and_does_nothing() -> None:
    floor, residual = Through(ResidualStream(16, 2, 50)), torch.randn(2, 5, 16)
    out = floor(residual, 0)
    assert torch.equal(out, residual)
    assert out.requires_grad
    assert floor(out, 1) is out


def test_lengths_are_like_the_definitions() -> None:
    lengths = drawn_lengths(10_000)
    assert sum(lengths) / len(lengths) == pytest.approx(15.1, abs=0.3)
    assert max(lengths) <= 93
    assert lengths == drawn_lengths(10_000)


def test_ways_share_the_frozen_weights() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 16, "num_heads": 4, "num_layers": 1}
    model = T5ForConditionalGeneration(T5Config(**sizes)).requires_grad_(False)
    way = modulated(model, FieldModulator)
    pairs = zip(model.parameters(), way.model.parameters(), strict=True)
    assert all(theirs is ours for theirs, ours in pairs)
    assert not model.encoder.block[0]._forward_pre_hooks
    assert way.model.encoder.block[0]._forward_pre_hooks
