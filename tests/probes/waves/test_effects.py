"""Effects against least squares with seeds as blocks, SciPy's t-test, and planted values."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from probes.waves.arms import FACTORS
from probes.waves.effects import factorial, holm, paired

CELLS = list(itertools.product((0, 1), repeat=4))
NAMES = list(FACTORS)


def _drawn(seed: int, seeds: int = 5) -> dict[tuple[int, ...], dict[int, float]]:
    rng = np.random.default_rng(seed)
    return {cell: {s: 2.4 + 0.01 * s + float(rng.normal(0, 0.01)) for s in range(seeds)} for cell in CELLS}


def test_a_factorial_is_least_squares_with_seeds_as_blocks() -> None:
    values = _drawn(0)
    x = np.array(CELLS) - 0.5
    columns = [x[:, i] for i in range(4)] + [x[:, i] * x[:, j] for i, j in itertools.combinations(range(4), 2)]
    rows = [
        [*(float(s == t) for t in range(5)), *(column[c] for column in columns)] for c in range(16) for s in range(5)
    ]
    X, y = np.array(rows), np.array([values[cell][s] for cell in CELLS for s in range(5)])
    coefficients, *_ = np.linalg.lstsq(X, y, rcond=None)
    residual = y - X @ coefficients
    freedom = len(y) - X.shape[1]
    errors = np.sqrt(residual @ residual / freedom * np.diag(np.linalg.inv(X.T @ X)))
    p = 2 * stats.t.sf(np.abs(coefficients / errors), freedom)
    found = factorial(values, NAMES)
    assert [effect.name for effect in found][:5] == [*NAMES, "embedding × attention"]
    np.testing.assert_allclose([effect.mean for effect in found], coefficients[5:], atol=1e-12)
    np.testing.assert_allclose([effect.p for effect in found], p[5:], rtol=1e-9)


def test_planted_effects_are_found() -> None:
    values = _drawn(1)
    for cell, by_seed in values.items():
        for seed in by_seed:
            by_seed[seed] += 0.3 * cell[0] - 0.2 * cell[1] + 0.1 * cell[0] * cell[1]
    found = {effect.name: effect for effect in factorial(values, NAMES)}
    # a main effect is the mean over the levels of the other factors
    assert found["embedding"].mean == pytest.approx(0.35, abs=0.01)
    assert found["attention"].mean == pytest.approx(-0.15, abs=0.01)
    assert found["embedding × attention"].mean == pytest.approx(0.1, abs=0.02)
    assert (found["embedding"].verdict, found["attention"].verdict) == ("worse", "better")
    assert max(found[name].p_holm for name in ("embedding", "attention", "embedding × attention")) < 1e-6
    assert found["optimizer"].verdict == "no difference of 0.01"


def test_without_any_effect_few_are_found() -> None:
    """5% of single p-values, and at most 5% of families after Holm's correction, within binomial bounds."""
    families = [factorial(_drawn(seed), NAMES) for seed in range(200)]
    single = sum(effect.p < 0.05 for family in families for effect in family)
    assert 0.03 < single / 2000 < 0.075
    assert sum(min(e.p_holm for e in family) < 0.05 for family in families) <= stats.binom.ppf(0.999, 200, 0.05)


def test_pairs_are_scipys() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.normal(2.40, 0.01, 5), rng.normal(2.43, 0.01, 5)
    [effect] = paired({"a": dict(enumerate(one))}, {"a": dict(enumerate(other))})
    told = stats.ttest_rel(one, other)
    assert effect.p == pytest.approx(told.pvalue)
    assert effect.interval == pytest.approx(tuple(told.confidence_interval()))
    assert effect.bootstrap[0] < effect.mean < effect.bootstrap[1]


def test_a_single_seed_decides_nothing() -> None:
    [effect] = paired({"a": {0: 2.0}}, {"a": {0: 3.0}})
    assert effect.mean == -1.0
    assert math.isnan(effect.p)
    assert effect.verdict == "undecided (one seed)"


def test_a_cell_that_is_missing() -> None:
    values = _drawn(0)
    del values[CELLS[3]]
    with pytest.raises(ValueError, match="15 cells of 16"):
        factorial(values, NAMES)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_never_helps(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    assert max(adjusted) <= 1
    ordered = [adjusted[i] for i in sorted(range(len(p)), key=p.__getitem__)]
    assert ordered == sorted(ordered)
    assert min(adjusted) == pytest.approx(min(1.0, min(p) * len(p)))


def test_a_difference_must_stand_among_the_others() -> None:
    """An interval without 0 is no difference where Holm's correction takes it back."""
    rng = np.random.default_rng(5)
    one = {seed: float(rng.normal(0.03, 0.015)) for seed in range(5)}
    nothing = dict.fromkeys(range(5), 0.0)
    [alone] = paired({"a": one}, {"a": nothing})
    assert alone.interval[0] > 0
    assert alone.verdict == "worse"
    others = {f"b{i}": {seed: float(rng.normal(0, 0.05)) for seed in range(5)} for i in range(20)}
    among = paired({"a": one, **others}, dict.fromkeys(["a", *others], nothing))[0]
    assert among.p == alone.p
    assert among.p_holm > 0.05
    assert among.verdict == "undecided"
