"""The relational objective against SciPy and NLTK's numbers, its controls, and what it refuses."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from torch.nn import functional as F

from modulant.geometry import weighted_pearson
from modulant.lexicon import Lexicon
from modulators import LemmaObjective, RelationalObjective, WeightedObjectives
from modulators.training.objectives.base import TrainingBatch, total
from modulators.training.objectives.relations import relation_of


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.load()


@pytest.fixture(scope="module")
def synsets(lexicon: Lexicon) -> np.ndarray:
    rng = np.random.default_rng(0)
    kinds = [rng.choice(np.flatnonzero(lexicon.pos == kind), 60, replace=False) for kind in ("n", "v", "a")]
    return np.sort(np.concatenate(kinds))


def batch(synsets: np.ndarray, seed: int = 0) -> TrainingBatch:
    points, base = torch.randn(2, len(synsets), 8, generator=torch.Generator().manual_seed(seed)).unbind(0)
    return TrainingBatch(torch.tensor(3.0), points.requires_grad_(True), base, synsets)


@pytest.mark.parametrize("relation", ["path", "wup"])
def test_each_term_is_scipys(relation: str, lexicon: Lexicon, synsets: np.ndarray) -> None:
    objective = RelationalObjective(relation=relation, all_pairs=1.0, nouns=2.0, verbs=1.0, task=0.3, keep=0.7)  # type: ignore[arg-type]
    objective.prepare(lexicon, synsets)
    some = np.random.default_rng(1).permutation(synsets)[:90]
    given = batch(some)
    terms = objective.terms(given)
    assert given.representations is not None
    assert given.base is not None
    z = F.normalize(given.representations.detach().double(), dim=-1).numpy()
    i, j = np.triu_indices(len(some), 1)
    if relation == "path":
        similarity = lexicon.taxonomy.path_similarity(some[i], some[j])
    else:
        wup = lexicon.taxonomy.wup_similarity
        similarity = (wup(some[i], some[j]) + wup(some[j], some[i])) / 2
    loss = 0.0
    for name, kind, weight in (("all", None, 0.25), ("nouns", "n", 0.5), ("verbs", "v", 0.25)):
        own = np.ones(len(i), bool) if kind is None else (lexicon.pos[some[i]] == kind) & (lexicon.pos[some[j]] == kind)
        expected = pearsonr((z @ z.T)[i, j][own], similarity[own]).statistic
        assert float(terms[f"pearson_{name}"].value.detach()) == pytest.approx(expected, abs=2e-6)
        assert terms[f"pearson_{name}"].weight == pytest.approx(-weight)
        loss -= weight * expected
    drift = 1 - (z * F.normalize(given.base.double(), dim=-1).numpy()).sum(-1).mean()
    assert float(total(terms).detach()) == pytest.approx(loss + 0.3 * 3.0 + 0.7 * drift, abs=5e-6)


def test_its_gradient_is_autograds_in_fp64() -> None:
    x = torch.randn(12, dtype=torch.float64, requires_grad=True)
    y, weights = torch.randn(12, dtype=torch.float64), torch.rand(12, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: weighted_pearson(x, y, weights), x)


def test_what_does_not_vary_counts_zero() -> None:
    x = torch.ones(6, requires_grad=True)
    r = weighted_pearson(x, torch.randn(6), torch.ones(6))
    r.backward()
    assert float(r.detach()) == 0.0
    assert x.grad is not None
    assert not x.grad.any()


@pytest.mark.parametrize("taxonomy", ["shuffled", "random"])
def test_a_control_keeps_the_numbers_and_loses_the_relation(
    taxonomy: str, lexicon: Lexicon, synsets: np.ndarray
) -> None:
    """Both are the same in every batch, and do not correlate with WordNet's."""
    objective = RelationalObjective(taxonomy=taxonomy)  # type: ignore[arg-type]
    objective.prepare(lexicon, synsets)
    assert objective._target is not None
    whole = objective._target(synsets)
    rows = np.random.default_rng(3).permutation(len(synsets))[:50]
    np.testing.assert_array_equal(objective._target(synsets[rows]), whole[np.ix_(rows, rows)])
    np.testing.assert_array_equal(whole, whole.T)
    upper = np.triu_indices(len(synsets), 1)
    of_nouns = (lexicon.pos[synsets] == "n")[np.stack(upper)].all(0)
    real = lexicon.taxonomy.path_similarity(synsets[upper[0]], synsets[upper[1]])
    assert abs(pearsonr(whole[upper][of_nouns], real[of_nouns]).statistic) < 0.1
    if taxonomy == "shuffled":
        np.testing.assert_allclose(np.sort(whole[upper]), np.sort(real))


def test_part_of_speech_alone_has_no_strata(lexicon: Lexicon, synsets: np.ndarray) -> None:
    objective = RelationalObjective(taxonomy="part_of_speech")
    assert len(objective.prepare(lexicon, synsets)) == 2
    terms = objective.terms(batch(synsets))
    assert set(terms) == {"pearson_all", "drift", "task"}
    assert float(terms["pearson_all"].value.detach()) != 0.0


@pytest.mark.parametrize("relation", ["path", "wup"])
def test_part_of_speech_is_the_mean_over_its_pairs(lexicon: Lexicon, relation: Any) -> None:
    """By a loop; a satellite adjective is an adjective."""
    synsets = np.sort(np.concatenate([np.flatnonzero(lexicon.pos == pos)[::2000][:20] for pos in "nvasr"]))
    target = relation_of(relation, "part_of_speech", lexicon, synsets, 0)(synsets)
    real = relation_of(relation, "wordnet", lexicon, synsets, 0)(synsets)
    pos = ["a" if pos == "s" else pos for pos in lexicon.pos[synsets].tolist()]
    pairs: dict[tuple[str, str], list[float]] = {}
    for i, j in zip(*np.triu_indices(len(synsets), 1), strict=True):
        if np.isfinite(real[i, j]):
            pairs.setdefault((min(pos[i], pos[j]), max(pos[i], pos[j])), []).append(float(real[i, j]))
    for i, j in zip(*np.triu_indices(len(synsets), 1), strict=True):
        known = pairs.get((min(pos[i], pos[j]), max(pos[i], pos[j])), [])
        assert target[i, j] == pytest.approx(np.mean(known) if known else np.nan, abs=1e-12, nan_ok=True)


def test_needs_nothing_that_no_weight_asks_for() -> None:
    assert not RelationalObjective(task=0.0).needs_task
    assert not RelationalObjective(keep=0.0).needs_base
    assert not WeightedObjectives([LemmaObjective(), RelationalObjective()], [1.0, 0.0]).needs_synsets


def test_a_weighted_sum_is_the_sum(lexicon: Lexicon, synsets: np.ndarray) -> None:
    parts = [LemmaObjective(), RelationalObjective(), RelationalObjective(relation="wup", seed=1)]
    summed = WeightedObjectives(parts, [0.5, 2.0, 1.0])
    summed.prepare(lexicon, synsets)
    given = batch(synsets)
    expected = sum(w * total(part.terms(given)) for part, w in zip(parts, (0.5, 2.0, 1.0), strict=True))
    assert float(total(summed.terms(given)).detach()) == pytest.approx(float(expected.detach()), abs=1e-5)  # type: ignore[union-attr]


def test_what_cannot_be_trained_is_refused(lexicon: Lexicon, synsets: np.ndarray) -> None:
    with pytest.raises(ValueError, match="all 0: nothing would be learnt"):
        RelationalObjective(all_pairs=0.0, nouns=0.0, verbs=0.0, task=0.0)
    with pytest.raises(ValueError, match="keep is -1"):
        RelationalObjective(keep=-1.0)
    adjectives = synsets[lexicon.pos[synsets] == "a"]  # which have no hypernyms
    with pytest.raises(ValueError, match="no relation to train: all pairs are left out of the objective: their sim"):
        RelationalObjective(nouns=0.0, verbs=0.0, task=0.0).prepare(lexicon, adjectives)
    with pytest.raises(ValueError, match="weights are all 0"):
        WeightedObjectives([LemmaObjective()], [0.0])
    with pytest.raises(ValueError, match="2 numbers for 1 objectives"):
        WeightedObjectives([LemmaObjective()], [1.0, 2.0])
    with pytest.raises(ValueError, match="at least one"):
        WeightedObjectives([])


def test_a_stratum_without_pairs_is_left_out(lexicon: Lexicon, synsets: np.ndarray) -> None:
    nouns = synsets[lexicon.pos[synsets] == "n"]
    objective = RelationalObjective(all_pairs=1.0, nouns=3.0, verbs=4.0)
    notes = objective.prepare(lexicon, nouns)
    assert notes == ["verbs pairs are left out of the objective: there are 0 such synsets to train on"]
    weights = {name: term.weight for name, term in objective.terms(batch(nouns)).items() if "pearson" in name}
    assert weights == {"pearson_all": -0.25, "pearson_nouns": -0.75}
