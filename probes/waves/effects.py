r"""Effects with intervals: of a factorial with seeds as blocks, and of paired differences.

With x_f = ±½ of a factor f, the model of bits per byte is

    y = μ_seed + Σ_f β_f x_f + Σ_{f<g} γ_fg x_f x_g + ε.

β_f is the mean difference between the two levels, γ_fg how much larger the effect of f is at the upper level of g.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

LEVEL = 0.95
SMALLEST = 0.01  # bits per byte: the smallest effect of interest
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Effect:
    """A mean difference over seeds.

    Attributes:
        name: of the factor, of two of them, or of the arm.
        mean: bits per byte; below 0 is better than what it is compared with.
        interval: 95%, by Student's t over seeds.
        bootstrap: 95%, percentiles of resampled seeds.
        p: of no difference.
        p_holm: the same among the family of effects that it was planned with.
        seeds: seed → the difference with it.
    """

    name: str
    mean: float
    interval: tuple[float, float]
    bootstrap: tuple[float, float]
    p: float
    p_holm: float
    seeds: Mapping[int, float]

    @property
    def verdict(self) -> str:
        """In words: better, worse, no difference of interest, or undecided.

        A difference has an interval without 0 and a corrected p-value below 5%.
        """
        low, high = self.interval
        if not math.isfinite(low + high):
            return "undecided (one seed)"
        if low > -SMALLEST and high < SMALLEST:
            return f"no difference of {SMALLEST:g}"
        if self.p_holm >= 0.05:
            return "undecided"
        return "better" if high < 0 else "worse" if low > 0 else "undecided"


def factorial(values: Mapping[tuple[int, ...], Mapping[int, float]], names: Sequence[str]) -> list[Effect]:
    """Main effects and two-way interactions, with p-values by least squares and Holm's correction over all of them.

    Args:
        values: levels of the factors, 0 or 1 each → seed → bits per byte. Seeds that a cell lacks are left out.
        names: of the factors.

    Raises:
        ValueError: a cell is missing.
    """
    cells = sorted(values)
    if len(cells) != 2 ** len(names):
        raise ValueError(f"{len(cells)} cells of {2 ** len(names)}; a factorial needs all")
    seeds = sorted(set.intersection(*(set(values[cell]) for cell in cells)))
    x = np.array(cells) - 0.5
    terms = [(name, x[:, i]) for i, name in enumerate(names)]
    terms += [(f"{names[i]} × {names[j]}", x[:, i] * x[:, j]) for i, j in combinations(range(len(names)), 2)]
    design = np.stack([column for _, column in terms], 1)
    y = np.array([[values[cell][seed] for seed in seeds] for cell in cells]).reshape(len(cells), len(seeds))
    # columns are orthogonal to each other and to the seeds, so that each coefficient stands by itself
    squares = (design**2).sum(0)
    of_seeds = design.T @ y / squares[:, None]
    coefficients = of_seeds.mean(1) if seeds else np.full(len(terms), math.nan)
    residual = y - y.mean(0) - (design @ coefficients)[:, None]
    freedom = y.size - len(seeds) - len(terms)
    if freedom > 0 and seeds:
        error = np.sqrt((residual**2).sum() / freedom / (squares * len(seeds)))
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * stats.t.sf(np.abs(coefficients / error), freedom)
    else:
        p = np.full(len(terms), math.nan)
    differences = [dict(zip(seeds, row, strict=True)) for row in of_seeds.tolist()]
    return _effects([name for name, _ in terms], differences, [float(value) for value in p])


def paired(arms: Mapping[str, Mapping[int, float]], references: Mapping[str, Mapping[int, float]]) -> list[Effect]:
    """Arms minus their references, seed by seed, with Holm's correction over all of them.

    Args:
        arms: name → seed → bits per byte.
        references: name of the arm → the same of what it is compared with.
    """
    differences = [
        {seed: own[seed] - references[name][seed] for seed in sorted({*own} & {*references[name]})}
        for name, own in arms.items()
    ]
    return _effects(list(arms), differences, [_student(list(d.values()))[1] for d in differences])


def _effects(names: Sequence[str], differences: Sequence[Mapping[int, float]], p: Sequence[float]) -> list[Effect]:
    found = []
    for name, by_seed, one, adjusted in zip(names, differences, p, holm(p), strict=True):
        values = list(by_seed.values())
        mean = math.fsum(values) / len(values) if values else math.nan
        found.append(Effect(name, mean, _student(values)[0], _bootstrap(values), one, adjusted, by_seed))
    return found


def _student(values: Sequence[float]) -> tuple[tuple[float, float], float]:
    """95% interval of the mean, and the p-value of 0; NaN of fewer than two."""
    if len(values) < 2:
        return (math.nan, math.nan), math.nan
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, len(values) - 1)) if error else float(mean == 0)
    return (mean - reach, mean + reach), p


def _bootstrap(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return math.nan, math.nan
    drawn = np.random.default_rng(0).choice(np.asarray(values), (_RESAMPLES, len(values))).mean(1)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of a family of p-values; NaN stays, and counts for nothing.

    >>> [round(value, 3) for value in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    known = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    found, highest = [math.nan] * len(p), 0.0
    for place, (value, i) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - place)))
        found[i] = highest
    return found
