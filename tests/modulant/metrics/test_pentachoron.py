"""PentachoronCV against the functions that it wraps."""

import pytest
import torch

from modulant.geometry import (
    BIN_WIDTH,
    BINS,
    coefficient_of_variation,
    gaussian_null_volumes,
    pentachoron_cv,
    pentachoron_volumes,
)
from modulant.metrics import PentachoronCV


def test_figures_are_those_of_the_functions() -> None:
    points = torch.randn(300, 12) ** 3
    metric = PentachoronCV(n=500, seed=7, null_repeats=10)
    metric.update(points)
    got = metric.compute()
    clouds = gaussian_null_volumes(points, 500, 7, 10)
    null = torch.stack([coefficient_of_variation(volumes) for volumes in clouds]).double()
    assert got["cv"].item() == pytest.approx(pentachoron_cv(points, 500, 7).item(), rel=1e-5)
    assert got["mean_volume"].item() == pytest.approx(pentachoron_volumes(points, 500, 7).mean().item(), rel=1e-5)
    assert got["null_mean"].item() == pytest.approx(null.mean().item(), rel=1e-9)
    assert got["null_sd"].item() == pytest.approx(null.std().item(), rel=1e-9)
    assert got["z"].item() == pytest.approx(((got["cv"] - null.mean()) / null.std()).item(), rel=1e-9)
    assert got["z"] > 5, "heavy tails must show against the null"


def test_the_histogram_is_of_what_the_cv_is_the_spread_of() -> None:
    points = torch.randn(300, 12)
    metric = PentachoronCV(n=2000, seed=7, null_repeats=10)
    metric.update(points)
    got = metric.compute()
    middles = (torch.arange(BINS, dtype=torch.float64) + 0.5) * BIN_WIDTH
    for name, cv in (("histogram", got["cv"]), ("null_histogram", got["null_mean"])):
        shares = got[name]
        assert shares.sum().item() == pytest.approx(1, abs=1e-12)
        mean = (shares * middles).sum()
        assert mean.item() == pytest.approx(1, abs=BIN_WIDTH / 4)
        assert (shares * (middles - mean).square()).sum().sqrt().item() == pytest.approx(cv.item(), rel=0.02)
    metric.reset()
    metric.update(torch.zeros(300, 12))
    assert metric.compute()["histogram"].sum() == 0, "flat pentachora have no relative volume"


def test_the_same_cloud_twice_as_from_two_ranks_leaves_the_figures() -> None:
    points = torch.randn(100, 6)
    once, twice = PentachoronCV(), PentachoronCV()
    once.update(points)
    twice.update(points)
    twice.update(points)
    for key, value in once.compute().items():
        torch.testing.assert_close(twice.compute()[key], value, rtol=1e-12, atol=0)


def test_clouds_of_different_scale_are_pooled_relative_to_their_own_means() -> None:
    near, far = torch.randn(300, 12), 100 * torch.randn(300, 24)
    alone = []
    for cloud in (near, far):
        one = PentachoronCV()
        one.update(cloud)
        alone.append(one.compute())
    both = PentachoronCV()
    both.update(near)
    both.update(far)
    got = both.compute()
    assert abs(got["z"]) < 4, "two Gaussian clouds are Gaussian"
    expected = sum(figures["cv"].square() for figures in alone) / 2
    assert got["cv"].item() == pytest.approx(expected.sqrt().item(), rel=1e-9)
    assert got["mean_volume"].item() == pytest.approx(sum(figures["mean_volume"].item() for figures in alone) / 2)


@pytest.mark.parametrize("length", [1e-12, 1e12])
def test_figures_do_not_depend_on_the_unit(length: float) -> None:
    points = torch.randn(100, 40)
    figures = []
    for unit in (1.0, length):
        metric = PentachoronCV(n=200, null_repeats=5)
        metric.update(points * unit)
        figures.append(metric.compute())
    assert figures[1]["mean_volume"].item() == pytest.approx(figures[0]["mean_volume"].item() * length**4, rel=1e-5)
    for key in ("cv", "null_mean", "null_sd"):
        assert figures[1][key].item() == pytest.approx(figures[0][key].item(), rel=1e-4)


def test_numbers_below_two_are_errors() -> None:
    with pytest.raises(ValueError, match="n is 1"):
        PentachoronCV(n=1)
    with pytest.raises(ValueError, match="null_repeats is 0"):
        PentachoronCV(null_repeats=0)
