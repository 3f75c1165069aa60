"""Figures of a model from the rows of its matrices, heads, neurons and norms: means over layers, each with its null."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from probes.topology.positions import figures_of_positions

Row = Mapping[str, Any]
Figures = dict[str, float | None]

RANKS = ("stable_rank", "participation_ratio", "entropy_rank", "rank90", "active", "condition")
ENTRIES = ("rms", "rms_over_init", "kurtosis", "zeros", "below_0.1", "below_0.01", "below_0.1_rms", "below_0.01_rms")
SOURCE = ("source/participation_ratio", "source/rank90")
FORMS = ("stable_rank", "participation_ratio", "signed_mass", "symmetry", "reality", "trace_cosine")
LEVEL = 0.05  # of all tests together


def figures_of(rows: Mapping[str, Sequence[Row]]) -> tuple[Figures, int]:
    """One flat mapping of names to numbers, and the number of tests in it.

    ``self_q/encoder/stable_rank`` is a mean over layers, of ``condition`` the median; ``…_null`` the same of the nulls.
    Of what has a sample of its null, ``…_null_sd``, ``…_p`` (two-sided, Welch's test) and ``…_n`` stand beside it.
    """
    figures: Figures = {}
    for (kind, location), group in _groups(rows["matrices"]).items():
        place = "/".join(filter(None, (kind, location)))
        cross = ("source/positive_share",) if kind == "cross_q" else ()
        for name in (*RANKS, *ENTRIES, *SOURCE, *cross):
            middle = statistics.median if name == "condition" else statistics.fmean
            figures[_named(place, name)] = _over(middle, [row.get(name) for row in group])
            nulls = [row.get("nulls", {}).get(name) for row in group]
            if any(null is not None for null in nulls):
                figures[_named(place, name) + "_null"] = _over(middle, nulls)
    n_tests = 0
    for (kind, location), group in _groups(rows["heads"]).items():
        for name in FORMS:
            values, nulls = _present(group, name), _present([row["nulls"] for row in group], name)
            if values:
                n_tests += _tested(figures, f"{kind}/{location}/{name}", values, nulls)
        signs = [row["source/positive"] / total for row in group if (total := _signs(row))]
        if signs:
            figures[f"source/{kind}/{location}/positive_share"] = statistics.fmean(signs)
    for (kind, location), group in _groups(rows["between"]).items():
        nulls = [null for row in group for null in row["nulls"]["similarity"] if null is not None]
        n_tests += _tested(figures, f"between/{kind}/{location}", _present(group, "similarity"), nulls, True)
        figures[f"source/between/{kind}/{location}"] = _over(statistics.fmean, [r.get("source/cosine") for r in group])
        sds = [row.get("source/cosine_null_sd") for row in group]
        figures[f"source/between/{kind}/{location}_null_sd"] = _over(statistics.fmean, sds)
    for (_, location), group in _groups(rows["neurons"]).items():
        figures[f"neurons/{location}/cv"] = _over(statistics.fmean, [row["cv"] for row in group])
        figures[f"neurons/{location}/cv_null"] = _over(statistics.fmean, [row["nulls"]["cv"] for row in group])
        figures[f"neurons/{location}/minimum"] = min((row["minimum"] for row in group if row["minimum"]), default=None)
        figures[f"neurons/{location}/weak"] = sum(row["weak"] for row in group)
        figures[f"neurons/{location}/n"] = sum(row["n"] for row in group)
    for (_, location), group in _groups(rows["norms"]).items():
        for name in ("mean", "cv", "negative", "source/high", "source/low"):
            figures[_named(f"norms/{location}", name)] = _over(statistics.fmean, [row[name] for row in group])
    more, n_more = figures_of_positions(rows["positions"])
    return figures | more, n_tests + n_more


def beyond(figures: Mapping[str, float | None], place: str, n_tests: int) -> bool:
    """Whether a figure differs from its null: p below 5% over the number of tests (Bonferroni)."""
    p = figures.get(f"{place}_p")
    return p is not None and p * max(n_tests, 1) < LEVEL


def _tested(figures: Figures, place: str, values: Sequence[float], nulls: Sequence[float], spread: bool = False) -> int:
    """Add a mean, that of its nulls, and the probability of their difference; return how many tests that was.

    Args:
        figures: where to.
        place: name of the figure.
        values: observed.
        nulls: a sample of the null.
        spread: test by the variance of the null instead of both (Welch): of few values, that differ for good reasons.
    """
    figures[place] = _over(statistics.fmean, values)
    figures[f"{place}_n"] = len(values)
    figures[f"{place}_null"] = _over(statistics.fmean, nulls)
    figures[f"{place}_null_sd"] = statistics.stdev(nulls) if len(nulls) > 1 else None
    figures[f"{place}_p"] = None
    if len(nulls) < 2 or not values or not statistics.stdev(nulls):
        return 0
    if spread:
        error = statistics.stdev(nulls) * math.sqrt(1 / len(values) + 1 / len(nulls))
        t = (statistics.fmean(values) - statistics.fmean(nulls)) / error
        p = 2 * float(stats.t.sf(abs(t), len(nulls) - 1))
    elif len(values) > 1:
        p = float(stats.ttest_ind(values, nulls, equal_var=False).pvalue)
    else:
        return 0
    figures[f"{place}_p"] = p
    return 1


def _groups(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by kind and location, in their order; of a kind that has none, all."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.get("kind", ""), row["location"] or ""), []).append(row)
    return groups


def _present(rows: Sequence[Row], name: str) -> list[float]:
    return [value for row in rows if (value := row.get(name)) is not None]


def _over(middle: Any, values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return middle(present) if present else None


def _signs(row: Row) -> float:
    return (row.get("source/positive") or 0) + (row.get("source/negative") or 0)


def _named(place: str, name: str) -> str:
    """The source's figures begin with ``source/``."""
    return f"source/{place}/{name.removeprefix('source/')}" if name.startswith("source/") else f"{place}/{name}"
