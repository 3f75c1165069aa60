"""RelationalAlignment against SciPy and NumPy's float64 on every pair, split, sampled, and over two processes."""

import itertools
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

import modulant.metrics.functional.pairs
import modulant.metrics.relational
from modulant.metrics import BANDS, POPULATIONS, RelationalAlignment, preservation
from modulant.metrics.functional.compiled_counts import count_blocks
from modulant.metrics.functional.counts import Counts, block_parts, count_parts, place_bins
from modulant.metrics.functional.pairs import Layout
from tests.modulant.metrics.conftest import P, pairs_of


def test_every_figure_equals_its_definition(points: torch.Tensor, distances: np.ndarray, held_out: np.ndarray) -> None:
    metric = RelationalAlignment(distances, held_out)
    metric.update(points)
    got = {key: value.item() for key, value in metric.compute().items()}
    i, j, similarity, cosine = pairs_of(points, distances)
    kinds = held_out[i].astype(int) + held_out[j]
    for prefix, chosen in [("", kinds >= 0)] + [(f"{name}/", kinds == k) for k, name in enumerate(POPULATIONS)]:
        s, c = similarity[chosen], cosine[chosen]
        assert got[f"{prefix}pairs"] == chosen.sum()
        assert got[f"{prefix}pearson"] == pytest.approx(pearsonr(s, c)[0], abs=1e-6)
        assert got[f"{prefix}spearman"] == pytest.approx(spearmanr(s, c)[0], abs=1e-6)
        assert got[f"{prefix}mean_cosine"] == pytest.approx(c.mean(), abs=1e-7)
        assert got[f"{prefix}gradient"] == pytest.approx(c[s >= 0.25].mean() - c[s < 0.1].mean(), abs=1e-7)
    for low, high in BANDS:
        inside = (similarity >= low) & (similarity < high)
        expected = cosine[inside].mean() if inside.any() else np.nan
        assert got[f"band/{low:.2f}_{high:.2f}"] == pytest.approx(expected, abs=1e-7, nan_ok=True)
    assert abs(got["pearson"]) > 0.02, "the test's own data must hold something to find"


def test_crowded_cosines_keep_their_spearman(distances: np.ndarray, held_out: np.ndarray, points: torch.Tensor) -> None:
    crowded = points + 6  # cosines near 0.95 with a spread of 0.012
    metric = RelationalAlignment(distances, held_out)
    metric.update(crowded)
    _, _, similarity, cosine = pairs_of(crowded, distances)
    assert cosine.std() < 0.02
    assert metric.compute()["spearman"].item() == pytest.approx(spearmanr(similarity, cosine)[0], abs=1e-6)
    assert metric.compute()["pearson"].item() == pytest.approx(pearsonr(similarity, cosine)[0], abs=1e-4)


CROWDS = ["constant but for 2e-5", "constant but for 6e-7", "clusters", "tight clusters", "tight where held out"]


def crowd(kind: str, points: torch.Tensor, held_out: np.ndarray) -> torch.Tensor:
    rng = np.random.default_rng(6)
    match kind:
        case "constant but for 2e-5":
            return points * 0.02 + 3
        case "constant but for 6e-7":
            return points * 0.003 + 3
        case "clusters" | "tight clusters":
            centres = rng.normal(size=(20, 64))[rng.integers(20, size=P)]
            noise = rng.normal(size=(P, 64)) * (0.01 if kind == "clusters" else 1e-4)
            return torch.from_numpy(centres + noise).float()
    return torch.where(torch.from_numpy(held_out)[:, None], points * 0.01 + 3, points - 0.5)


@pytest.mark.parametrize("pairs", ["all", P * P])
@pytest.mark.parametrize("kind", CROWDS)
def test_cosines_that_crowd_have_the_figures_of_fp64(
    points: torch.Tensor, distances: np.ndarray, held_out: np.ndarray, kind: str, pairs: str | int
) -> None:
    crowded = crowd(kind, points, held_out)
    metric = RelationalAlignment(distances, held_out, pairs)
    metric.update(crowded)
    got = metric.compute()
    i, j, similarity, cosine = pairs_of(crowded, distances)
    held = held_out[i] & held_out[j]
    for prefix, chosen in (("", held | True), ("held_out/", held)):
        s, c = similarity[chosen], cosine[chosen]
        # Of the held-out pairs there are some ten thousand: a pair that shares a bin weighs more.
        tolerance = 2e-6 if prefix == "" else 1e-5
        assert got[f"{prefix}pearson"].item() == pytest.approx(pearsonr(s, c)[0], abs=tolerance)
        assert got[f"{prefix}spearman"].item() == pytest.approx(spearmanr(s, c)[0], abs=10 * tolerance)
        assert got[f"{prefix}mean_cosine"].item() == pytest.approx(c.mean(), abs=1e-9)
        expected = c[s >= 0.25].mean() - c[s < 0.1].mean()
        assert got[f"{prefix}gradient"].item() == pytest.approx(expected, abs=1e-9)


def test_the_compiled_loop_counts_what_array_operations_count(
    points: torch.Tensor, distances: np.ndarray, held_out: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modulant.metrics.functional.pairs, "PAIRS_PER_BLOCK", 50_000)  # several blocks
    d = np.where(distances == 255, distances[distances != 255].max() + 1, distances).astype(np.uint8)
    dropped, layout = int(d.max()), Layout(held_out, np.array(list("nvasr"))[np.arange(P) % 5])
    unit = torch.nn.functional.normalize(points, dim=-1)
    bins = place_bins(unit, 2**13)
    compiled = count_blocks(unit, d, dropped + 1, layout, layout.blocks(), bins)
    arrays = Counts(*(torch.zeros_like(counts) for counts in compiled))
    for first, last in layout.blocks():
        count_parts(arrays, block_parts(unit, torch.from_numpy(d), dropped, layout, first, last), bins)
    assert arrays.sums[:, :-1].count_nonzero() > 60
    for one, other in zip(compiled, arrays, strict=True):
        # The last class is dropped: it holds pairs without a path, and what array operations put there besides.
        assert torch.equal(one[:, :-1], other[:, :-1])


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_find_the_same_bits(
    points: torch.Tensor, distances: np.ndarray, held_out: np.ndarray, threads: int
) -> None:
    def figures() -> dict[str, torch.Tensor]:
        metric = RelationalAlignment(distances, held_out)
        metric.update(points)
        return metric.compute()

    alone = figures()
    torch.set_num_threads(threads)
    try:
        together = figures()
    finally:
        torch.set_num_threads(1)
    for key, value in alone.items():
        assert torch.equal(value.nan_to_num(), together[key].nan_to_num())


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize(("n", "shift"), [(2, 0), (3, 0), (17, 0), (P, 0), (P, 1e4)])  # the last one's cosines crowd
@pytest.mark.parametrize("pairs", ["all", 100_000])
def test_the_shares_of_any_number_of_ranks_add_up(
    points: torch.Tensor,
    distances: np.ndarray,
    held_out: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    ranks: int,
    n: int,
    shift: float,
    pairs: str | int,
) -> None:
    points = points + shift
    monkeypatch.setattr(modulant.metrics.functional.pairs, "PAIRS_PER_BLOCK", max(8, n * n // 8))
    d, out = distances[:n, :n], held_out[:n]
    whole = RelationalAlignment(d, out, pairs)
    whole.update(points[:n])
    assert whole.remainders.any() == bool(shift)
    states = ("histograms", "sums", "squares", "remainders")
    total = dict.fromkeys(states, 0)
    for rank in range(ranks):
        monkeypatch.setattr(
            modulant.metrics.relational, "_by_rank", lambda blocks, r=rank: itertools.islice(blocks, r, None, ranks)
        )
        share = RelationalAlignment(d, out, pairs)
        share.update(points[:n])
        total = {state: total[state] + getattr(share, state) for state in states}
    for state in states:
        assert torch.equal(total[state], getattr(whole, state))


@pytest.mark.parametrize("n", [1, 2, 3, 17])
def test_few_points_have_their_figures_and_no_more(
    points: torch.Tensor, distances: np.ndarray, held_out: np.ndarray, n: int
) -> None:
    metric = RelationalAlignment(distances[:n, :n], held_out[:n])
    metric.update(points[:n])
    got = metric.compute()
    x = torch.nn.functional.normalize(points[:n].double(), dim=-1)
    i, j = np.triu_indices(n, 1)
    cosine, d = (x @ x.T).numpy()[i, j], distances[i, j].astype(float)
    keep = d != 255
    assert got["pairs"] == keep.sum()
    if keep.sum() >= 3:
        expected = pearsonr(1 / (1 + d[keep]), cosine[keep])[0]
        # Squares of cosines are counted in steps of 1e-9, which shows while pairs are few.
        assert got["pearson"].item() == pytest.approx(expected, abs=1e-5)
    elif keep.sum() < 2:
        assert got["pearson"].isnan()
        assert got["spearman"].isnan()


@pytest.mark.parametrize("constant", ["same", "zero", "simplex"])
def test_constant_representations_are_nan_with_one_warning(
    distances: np.ndarray, held_out: np.ndarray, constant: str
) -> None:
    points = {
        "same": torch.randn(1, 40).expand(P, -1),
        "zero": torch.zeros(P, 40),
        "simplex": torch.eye(P) + 0.02,  # every cosine the same, and neither 0 nor 1
    }[constant]
    metric = RelationalAlignment(distances, held_out)
    metric.update(points)
    with pytest.warns(UserWarning, match="zero variance") as warned:
        figures = metric.compute()
    assert len(warned) == 1
    for prefix in ("", *(f"{name}/" for name in POPULATIONS)):
        assert figures[f"{prefix}pearson"].isnan()
        assert figures[f"{prefix}spearman"].isnan()
        assert figures[f"{prefix}mean_cosine"].isfinite()


def test_points_that_are_not_finite_are_told_and_not_counted(
    points: torch.Tensor, distances: np.ndarray, held_out: np.ndarray
) -> None:
    broken = points.clone()
    broken[3, 1], broken[9, 0] = torch.nan, torch.inf
    metric = RelationalAlignment(distances, held_out)
    with pytest.warns(UserWarning, match="2 of 700 points hold NaN"):
        metric.update(broken)
    assert metric.compute()["pearson"].isnan()


def test_a_sample_is_of_distinct_pairs_repeats_with_its_seed_and_approaches_the_whole(
    points: torch.Tensor, distances: np.ndarray, held_out: np.ndarray
) -> None:
    def figures(**settings: object) -> dict[str, float]:
        metric = RelationalAlignment(distances, held_out, **settings)
        metric.update(points)
        return {key: value.item() for key, value in metric.compute().items()}

    exact, whole = figures(), figures(pairs=P * P)
    assert whole == pytest.approx(exact, abs=1e-6, nan_ok=True)  # every pair once: the sample's pairs are distinct
    sample = figures(pairs=60_000, seed=1)
    assert sample == pytest.approx(figures(pairs=60_000, seed=1), abs=0, nan_ok=True)
    assert sample["pearson"] != figures(pairs=60_000, seed=2)["pearson"]
    assert sample["pearson"] == pytest.approx(exact["pearson"], abs=4 / 60_000**0.5)


def test_a_sample_does_not_depend_on_the_split(points: torch.Tensor, distances: np.ndarray) -> None:
    results = []
    for held_out in (np.zeros(P, dtype=bool), np.arange(P) % 3 == 0):
        metric = RelationalAlignment(distances, held_out, pairs=5000)
        metric.update(points)
        results.append(metric.compute()["pearson"].item())
    assert results[0] == pytest.approx(results[1], abs=1e-9)


def test_settings_of_the_run_do_not_reach_the_figures(
    points: torch.Tensor, distances: np.ndarray, held_out: np.ndarray
) -> None:
    metric = RelationalAlignment(distances, held_out)
    metric.update(points)
    before = metric.compute()["pearson"]
    metric.reset()
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        metric.update(points)
        assert metric.compute()["pearson"] == before


def test_too_few_pairs_and_points_are_errors(distances: np.ndarray, held_out: np.ndarray) -> None:
    with pytest.raises(ValueError, match="pairs is 1"):
        RelationalAlignment(distances, held_out, pairs=1)
    with pytest.raises(ValueError, match="got 5 points"):
        RelationalAlignment(distances, held_out).update(torch.randn(5, 3))


def test_preservation_is_the_mean_cosine(points: torch.Tensor) -> None:
    assert preservation(points, -2 * points).item() == pytest.approx(-1, abs=1e-6)


def _rank(rank: int, folder: str, distances: np.ndarray, held_out: np.ndarray, points: np.ndarray) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    figures = {}
    for pairs in ("all", 200_000):
        metric = RelationalAlignment(distances, held_out, pairs)
        metric.update(torch.from_numpy(points))
        figures[str(pairs)] = metric.compute()
    torch.save(figures, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_share_the_work_and_find_the_same_bits(
    tmp_path: Path, points: torch.Tensor, distances: np.ndarray, held_out: np.ndarray
) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = (str(tmp_path), distances, held_out, points.numpy())
    processes = [context.Process(target=_rank, args=(rank, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for pairs in ("all", 200_000):
        alone = RelationalAlignment(distances, held_out, pairs)
        alone.update(points)
        for key, value in alone.compute().items():
            assert torch.equal(value.nan_to_num(), first[str(pairs)][key].nan_to_num())
            assert torch.equal(value.nan_to_num(), second[str(pairs)][key].nan_to_num())
