"""The bootstrap over synsets against RelationalAlignment, a plain float64 bootstrap and the jackknife."""

import numpy as np
import pytest
import torch

import modulant.metrics.functional.bootstrap
import modulant.metrics.functional.pairs
from modulant.metrics import (
    POPULATIONS,
    RelationalAlignment,
    bootstrap_columns,
    bootstrap_pearson,
    bootstrap_steps,
    lift_intervals,
    percentile_interval,
)
from modulant.metrics.functional.bootstrap import synset_weights


def cloud_and_distances(n: int, seed: int = 0, no_path: float = 0.02) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Points on a line of topics with noise; path lengths that follow the line a little; every fifth held out."""
    rng = np.random.default_rng(seed)
    place = rng.random(n)
    d = np.clip(1 + 14 * np.abs(place[:, None] - place) + rng.normal(0, 3, (n, n)), 1, 22).round().astype(np.uint8)
    d[rng.random((n, n)) < no_path] = 255
    d = np.triu(d, 1)
    angles = place[:, None] * np.arange(1, 5)
    points = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) + rng.normal(0.2, 0.5, (n, 8))
    return torch.from_numpy(points).float(), d + d.T, np.arange(n) % 5 == 2


def brute_force(points: torch.Tensor, d: np.ndarray, held_out: np.ndarray, w: np.ndarray) -> list[float]:
    """Weighted Pearson in float64 over every pair, by population."""
    x = points.double().numpy()
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    i, j = np.triu_indices(len(x), 1)
    i, j = i[d[i, j] != 255], j[d[i, j] != 255]
    s, c, weight = 1 / (1 + d[i, j].astype(float)), (x[i] * x[j]).sum(1), w[i] * w[j].astype(float)
    kinds = held_out[i].astype(int) + held_out[j]
    figures = []
    for chosen in (kinds >= 0, kinds == 0, kinds == 1, kinds == 2):
        cov = np.cov(s[chosen], c[chosen], aweights=weight[chosen], ddof=0)
        figures.append(cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1]))
    return figures


def test_replicates_are_those_of_a_plain_float64_bootstrap() -> None:
    points, d, held_out = cloud_and_distances(60)
    other = points + torch.randn(60, 8)
    got = bootstrap_pearson([points, other], d, held_out, replicates=20, seed=3)
    weights = synset_weights(held_out, 20, 3).numpy()
    assert got.shape == (2, 20, 4)
    assert got.dtype == torch.float64
    for cloud, rows in zip((points, other), got.numpy(), strict=True):
        expected = [brute_force(cloud, d, held_out, w) for w in weights]
        np.testing.assert_allclose(rows, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("crowds", [False, True])
def test_parts_and_parts_of_speech_have_replicates_of_their_pairs(crowds: bool) -> None:
    n = 240
    points, d, held_out = cloud_and_distances(n)
    part = np.where(held_out, 1 + np.arange(n) // 5 % 2, 0).astype(np.int8)
    pos = np.random.default_rng(2).choice(list("nnnnvvvva"), n)
    points = points * 3e-3 + 3 if crowds else points
    got = bootstrap_pearson([points], d, part, replicates=8, seed=3, pos=pos)[0].numpy()
    columns = bootstrap_columns(part, pos)
    assert got.shape == (8, len(columns)) == (8, 15)
    weights = synset_weights(part, 8, 3)
    for value in range(3):
        assert (weights[:, part == value].sum(1) == (part == value).sum()).all()
    parts = {"train": {0}, "held_out": {2}, "validation": {1}}
    for c, name in enumerate(columns):
        population, _, stratum = name.rpartition("/") if name.endswith(("nouns", "verbs")) else (name, "", "")
        for replicate, w in enumerate(weights.numpy()):
            inside = np.ones((n, n), dtype=bool)
            if population == "mixed":
                inside = part[:, None] != part
            elif population in parts:
                own = np.isin(part, list(parts[population]))
                inside = np.outer(own, own)
            if stratum:
                inside &= np.outer(pos == stratum[0], pos == stratum[0])
            expected = brute_force_all(points, np.where(inside, d, 255), w)
            assert got[replicate, c] == pytest.approx(expected, abs=5e-6), name


def test_parts_of_speech_leave_the_other_replicates_as_they_are() -> None:
    points, d, held_out = cloud_and_distances(120)
    pos = np.random.default_rng(2).choice(list("nnnvvasr"), 120)
    plain = bootstrap_pearson([points], d, held_out, 10)
    assert bootstrap_columns(held_out) == ("all", *POPULATIONS) == bootstrap_columns(held_out, pos)[:4]
    both = bootstrap_pearson([points], d, held_out.astype(np.int8), 10, pos=pos)
    torch.testing.assert_close(both[..., :4], plain, rtol=0, atol=1e-6)
    steps: list[int] = []
    bootstrap_pearson([points], d, held_out, 2, advance=lambda: steps.append(1), pos=pos)
    assert len(steps) == bootstrap_steps(held_out, pos)


def test_many_blocks_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    points, d, held_out = cloud_and_distances(90)
    whole = bootstrap_pearson([points], d, held_out, 10)
    monkeypatch.setattr(modulant.metrics.functional.pairs, "PAIRS_PER_BLOCK", 500)
    steps: list[int] = []
    torch.testing.assert_close(
        bootstrap_pearson([points], d, held_out, 10, advance=lambda: steps.append(1)), whole, rtol=0, atol=2e-6
    )
    assert len(steps) == bootstrap_steps(held_out) > 5


def test_weights_of_one_give_the_figures_of_the_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    points, d, held_out = cloud_and_distances(300)
    ones = lambda out, n, _: torch.ones(n, len(out)).int()  # noqa: E731
    monkeypatch.setattr(modulant.metrics.functional.bootstrap, "synset_weights", ones)
    got = bootstrap_pearson([points], d, held_out, 2)[0, 0]
    metric = RelationalAlignment(d, held_out)
    metric.update(points)
    figures = metric.compute()
    expected = torch.stack([figures["pearson"], *(figures[f"{name}/pearson"] for name in POPULATIONS)])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    assert (expected.abs() > 0.02).all(), "the test's own data must hold something to find"


@pytest.mark.parametrize("kind", ["nearly constant", "tight where held out", "constant"])
def test_cosines_that_crowd_have_the_figures_of_fp64(kind: str) -> None:
    points, d, held_out = cloud_and_distances(80)
    crowded = points * (1e-6 if kind == "constant" else 3e-3) + 3
    if kind == "tight where held out":
        crowded = torch.where(torch.from_numpy(held_out)[:, None], crowded, points)
    replicates = bootstrap_pearson([points, crowded], d, held_out, replicates=8, seed=3)
    metric = RelationalAlignment(d, held_out)
    metric.update(crowded)
    if kind == "constant":  # the metric and the bootstrap agree on what that is
        assert replicates[1].isnan().all()
        with pytest.warns(UserWarning, match="zero variance"):
            assert metric.compute()["pearson"].isnan()
        return
    expected = [brute_force(crowded, d, held_out, w) for w in synset_weights(held_out, 8, 3).numpy()]
    np.testing.assert_allclose(replicates[1], expected, rtol=0, atol=2e-6)
    assert metric.compute()["held_out/pearson"].isfinite()
    torch.testing.assert_close(replicates[0], bootstrap_pearson([points], d, held_out, 8, seed=3)[0], rtol=0, atol=0)


def test_weights_resample_each_kind_within_itself_and_repeat_with_their_seed() -> None:
    held_out = np.arange(50) % 5 == 2
    weights = synset_weights(held_out, 400, 1)
    assert (weights[:, held_out].sum(1) == 10).all()
    assert (weights[:, ~held_out].sum(1) == 40).all()
    assert torch.equal(weights, synset_weights(torch.from_numpy(held_out), 400, 1))
    assert not torch.equal(weights, synset_weights(held_out, 400, 2))
    # A count is binomial (n, 1/n): mean 1 and variance 1 − 1/n; standard error of this variance below 0.02.
    assert weights[:, ~held_out].float().var().item() == pytest.approx(1 - 1 / 40, abs=0.08)


def test_its_spread_is_that_of_the_jackknife() -> None:
    # Delete one synset at a time: SE² = (n − 1)/n Σ (r_(i) − mean)². Nothing is held out: it knows no kinds.
    n = 250
    points, d, _ = cloud_and_distances(n, seed=1)
    nothing = np.zeros(n, dtype=bool)
    keep = 1 - np.eye(n)
    left_out = np.array([brute_force_all(points, d, w) for w in keep])
    jackknife = np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())
    replicates = bootstrap_pearson([points], d, nothing, 1500, seed=5)[0, :, 0]
    # 1500 replicates know their own spread to 1 / sqrt(3000) = 1.8%; the two estimators differ by O(1/n).
    assert replicates.std().item() == pytest.approx(jackknife, rel=0.10)
    assert bootstrap_pearson([points], d, nothing, 2)[0, :, 2:].isnan().all()


def brute_force_all(points: torch.Tensor, d: np.ndarray, w: np.ndarray) -> float:
    x = points.double().numpy()
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    weight = np.triu(np.outer(w, w) * (d != 255), 1)
    s, c = 1 / (1 + d.astype(float)), x @ x.T
    mean_s, mean_c = (weight * s).sum() / weight.sum(), (weight * c).sum() / weight.sum()
    s, c = s - mean_s, c - mean_c
    return (weight * s * c).sum() / np.sqrt((weight * s * s).sum() * (weight * c * c).sum())


def test_a_paired_difference_is_steadier_than_two_figures() -> None:
    points, d, held_out = cloud_and_distances(200)
    near = points + 0.05 * torch.randn(200, 8)
    one, two = bootstrap_pearson([points, near], d, held_out, 200)[..., 0]
    assert (two - one).std() < 0.3 * one.std()
    assert torch.equal(one, bootstrap_pearson([points], d, held_out, 200)[0, :, 0])


def test_what_does_not_vary_is_nan() -> None:
    points, d, held_out = cloud_and_distances(80)
    same = points[:1].expand(80, -1)
    few = np.zeros(80, dtype=bool)
    few[:2] = True
    varied, constant = bootstrap_pearson([points, same], d, few, 5)
    assert constant.isnan().all()
    assert varied[:, :3].isfinite().all()
    assert varied[:, 3].isnan().all()
    level = np.where(np.eye(80, dtype=bool), 0, 7).astype(np.uint8)
    assert bootstrap_pearson([points], level, held_out, 5).isnan().all()


def test_the_interval_asks_for_enough_finite_replicates() -> None:
    replicates = np.random.default_rng(0).permutation(np.concatenate([np.arange(101.0), np.full(7, np.nan)]))
    assert percentile_interval(replicates, finite=0.9) == pytest.approx((2.5, 97.5))
    assert percentile_interval(replicates, 50, finite=0.9) == pytest.approx((25, 75))
    assert percentile_interval(replicates, finite=0.95) is None
    assert percentile_interval(replicates) is None
    assert percentile_interval(np.full(9, np.nan), finite=0.0) is None


def test_the_interval_of_a_lift_is_of_its_paired_differences() -> None:
    original, modulated = torch.randn(2, 500, 4, dtype=torch.float64)
    modulated[7, 2] = torch.nan
    found = lift_intervals(original, modulated)
    assert found.keys() == {"all", "train", "held_out"}
    for column, name in ((0, "all"), (1, "train"), (3, "held_out")):
        assert found[name] == tuple(np.percentile((modulated - original)[:, column], (2.5, 97.5)))


def test_bad_input_is_told() -> None:
    points, d, held_out = cloud_and_distances(30)
    with pytest.raises(ValueError, match=r"clouds of \[30, 29\] points"):
        bootstrap_pearson([points, points[:29]], d, held_out)
    with pytest.raises(ValueError, match=r"clouds of \[\] points"):
        bootstrap_pearson([], d, held_out)
    with pytest.raises(ValueError, match=r"distances of shape \(29, 30\)"):
        bootstrap_pearson([points], d[:29], held_out)
    with pytest.raises(ValueError, match="replicates is 1"):
        bootstrap_pearson([points], d, held_out, replicates=1)
    with pytest.raises(ValueError, match="level is 100"):
        percentile_interval(np.ones(9), 100)
