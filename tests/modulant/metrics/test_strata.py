"""RelationalAlignment by part of the split and part of speech: figures of those pairs, which add up to the whole."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from modulant.metrics import POPULATIONS, STRATA, RelationalAlignment
from modulant.metrics.functional.counts import place_bins
from tests.modulant.metrics.conftest import P, pairs_of


@pytest.fixture
def pos() -> np.ndarray:
    return np.random.default_rng(8).choice(list("nnnnvvasr"), P)


@pytest.fixture
def part(held_out: np.ndarray) -> np.ndarray:
    return np.where(held_out, np.random.default_rng(9).integers(1, 3, P), 0).astype(np.int8)


@pytest.mark.parametrize(("pairs", "crowds"), [("all", False), ("all", True), (P * P, False)])
def test_parts_and_parts_of_speech_have_the_figures_of_their_pairs(
    points: torch.Tensor, distances: np.ndarray, part: np.ndarray, pos: np.ndarray, pairs: str | int, crowds: bool
) -> None:
    points, distances, part, pos = points[:300], distances[:300, :300], part[:300], pos[:300]
    points = points * 0.01 + 3 if crowds else points
    metric = RelationalAlignment(distances, part, pairs, pos=pos)
    metric.update(points)
    assert metric.remainders.any() == crowds
    got = {key: value.item() for key, value in metric.compute().items()}
    i, j, similarity, cosine = pairs_of(points, distances)
    same = part[i] == part[j]
    populations = {
        "": np.ones_like(same),
        "train/": same & (part[i] == 0),
        "mixed/": ~same,
        "held_out/": same & (part[i] == 2),
        "validation/": same & (part[i] == 1),
    }
    kinds = {name: (pos[i] == letter) & (pos[j] == letter) for name, letter in (("nouns/", "n"), ("verbs/", "v"))}
    for population, chosen in populations.items():
        for stratum, within in {"": np.ones_like(same), **kinds}.items():
            s, c = similarity[chosen & within], cosine[chosen & within]
            assert got[f"{population}{stratum}pairs"] == len(s) > 0
            assert got[f"{population}{stratum}pearson"] == pytest.approx(pearsonr(s, c)[0], abs=3e-5)
            # Of few pairs, some twenty here, each that shares a bin weighs more.
            assert got[f"{population}{stratum}spearman"] == pytest.approx(spearmanr(s, c)[0], abs=3e-4)


@pytest.mark.parametrize("pairs", ["all", 50_000])
def test_strata_leave_the_other_figures_as_they_are(
    points: torch.Tensor, distances: np.ndarray, held_out: np.ndarray, pos: np.ndarray, pairs: str | int
) -> None:
    found = []
    for of, letters in ((held_out, None), (held_out.astype(np.int8), pos)):
        metric = RelationalAlignment(distances, of, pairs, pos=letters)
        metric.update(points)
        found.append(metric.compute())
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=0, atol=1e-6, equal_nan=True)


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("nvasr")), min_size=2, max_size=60))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_strata_and_populations_add_up_to_the_whole(
    points: torch.Tensor, distances: np.ndarray, some: list[tuple[int, str]]
) -> None:
    n = len(some)
    part, pos = np.array([part for part, _ in some]), np.array([letter for _, letter in some])
    whole = RelationalAlignment(distances[:n, :n], np.zeros(n, dtype=bool))
    split = RelationalAlignment(distances[:n, :n], part, pos=pos)
    for metric in (whole, split):
        metric._bins = place_bins(torch.nn.functional.normalize(points[:n], dim=-1), metric.n_bins)
        metric.update(points[:n])
    pairs = whole.histograms.sum((0, 2))
    assert torch.equal(split.histograms.sum((0, 2)), pairs)
    for state in ("sums", "squares"):  # a product of another shape may round a cosine otherwise
        steps = 8 if state == "sums" else 1024
        assert ((getattr(split, state).sum(0) - getattr(whole, state).sum(0)).abs() <= steps * pairs).all()
    cells = split.layout.columns
    populations = [name for name in cells if name in (*POPULATIONS, "validation")]
    assert sorted(cell for name in populations for cell in cells[name]) == cells["all"]
    for stratum in STRATA:
        assert sorted(cell for name in populations for cell in cells[f"{name}/{stratum}"]) == cells[stratum]


def test_a_stratum_without_pairs_has_no_figures(points: torch.Tensor, distances: np.ndarray) -> None:
    pos = np.array(["n", "n", "n", *"a" * (P - 4), "v"])
    metric = RelationalAlignment(distances, np.arange(P) >= P - 3, pos=pos)
    metric.update(points)
    strata = {key.rpartition("/")[0] for key in metric.compute() if "nouns" in key or "verbs" in key}
    assert strata == {"nouns", "train/nouns"}
