"""The figures of a model card: tables from a run's report and from its controls."""

from collections.abc import Mapping
from typing import Any

from modulant.reports.populations import population_names
from modulant.reports.table import Table
from modulant.reports.wording import number, with_interval

_LOSS = {
    "val/loss": "validation loss, nats per token",
    "val/exact_match": "exact match",
    "val/token_accuracy": "token accuracy",
}


def as_of_result(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The report of a run whose artefact is of an earlier step, with the figures of that step in place of the last.

    Intervals, which were computed of the last weights, are left out.
    """
    result = (report.get("run") or {}).get("result")
    if not result:
        return report
    found = dict(report)
    for name in ("relational", "pentachoron"):
        section = report.get(name) or {}
        then = [check for check in section.get("history") or [] if check.get("step") == result["step"]]
        found[name] = dict(section) | {"last": then[-1] if then else None, "interval": {}}
    metrics = {
        key: dict(value) | {"last": result["metrics"].get(key)} for key, value in report["run"]["metrics"].items()
    }
    found["run"] = dict(report["run"]) | {"metrics": metrics}
    convergence = {**((report.get("alpha") or {}).get("convergence") or {}), "converged_at": None}
    found["alpha"] = dict(report.get("alpha") or {}) | {"final": result["alphas"], "convergence": convergence}
    return found


def correlations(relational: Mapping[str, Any]) -> Table:
    """Pearson before and after by population of pairs, with the lift's interval."""
    last, original = relational.get("last") or {}, (relational.get("baseline") or {}).get("original") or {}
    intervals = relational.get("interval") or {}
    rows = []
    for population, title in population_names(relational).items():
        prefix = "" if population == "all" else f"{population}/"
        key = f"{prefix}pearson"
        if key in last and f"{key}_lift" in last:
            pairs = last.get(f"{prefix}pairs")
            lift = with_interval(last[f"{key}_lift"], intervals.get(population))
            count = f"{pairs:,.0f}" if pairs is not None else "–"
            rows.append([title, count, number(original.get(key)), number(last[key]), lift])
    return Table(["pairs of synsets", "number", "backbone", "modulated", "lift, 95% interval"], rows)


def others(relational: Mapping[str, Any]) -> list[str]:
    """Other relational figures, each with its name."""
    last, baseline = relational.get("last") or {}, relational.get("baseline") or {}
    original = baseline.get("original") or {}
    found = [
        f"{title} {number(original.get(key))} → {number(last[key])}"
        for key, title in (("spearman", "Spearman"), ("gradient", "gradient (near − far)"))
        if key in last
    ]
    if "preservation" in last:
        kept = number(last["preservation"])
        found.append(f"preservation (mean cosine with the backbone's own representation) {kept}")
    for key, title in (("static", "static embeddings alone"), ("random", "a randomly initialised encoder")):
        if "pearson" in baseline.get(key, {}):
            found.append(f"Pearson of {title} {number(baseline[key]['pearson'])}")
    return found


def task(report: Mapping[str, Any]) -> Table:
    """Loss, answers and pentachora before and after."""
    metrics = (report.get("run") or {}).get("metrics") or {}
    rows = [
        [title, number(metrics[key].get("first")), number(metrics[key].get("last"))]
        for key, title in _LOSS.items()
        if key in metrics
    ]
    health = report.get("pentachoron") or {}
    first, last = health.get("base") or {}, health.get("last") or {}
    if "cv" in last:
        rows.append(["CV of pentachoron volumes", number(first.get("cv")), number(last["cv"])])
        rows.append(["its z against Gaussian points", number(first.get("z"), 1), number(last.get("z"), 1)])
    return Table(["", "before", "after"], rows)


def reference(report: Mapping[str, Any]) -> str | None:
    """What the CV was compared with; None without a CV."""
    last = (report.get("pentachoron") or {}).get("last") or {}
    return number(last.get("reference")) if "cv" in last else None


def alpha(alpha: Mapping[str, Any]) -> dict[str, Any]:
    """α at the end as a table `alphas`; the one value `start` that all began at; the step `converged_at`."""
    final = alpha.get("final") or []
    rows = [[str(layer), *map(number, row)] for layer, row in zip(alpha.get("layers") or [], final, strict=True)]
    starts = {round(value, 6) for row in alpha.get("initial") or [] for value in row}
    return {
        "alphas": Table(["layer", *(alpha.get("experts") or [])], rows),
        "start": starts.pop() if len(starts) == 1 else None,
        "converged_at": (alpha.get("convergence") or {}).get("converged_at"),
    }


def controls(controls: Mapping[str, Any], relational: Mapping[str, Any]) -> Table:
    """The lift of each control, its populations named as those of the run are."""
    rows = []
    for name, found in controls.items():
        lifts = [(found.get("pearson_lift") or {}).get(population) for population in ("all", "held_out")]
        shown = [with_interval(lift["mean"], lift.get("interval")) if lift else "–" for lift in lifts]
        rows.append([name, f"{found.get('parameters') or 0:,}", str(len(found.get("seeds") or [])), *shown])
    return Table(["", "trained parameters", "seeds", "lift, all pairs", population_names(relational)["held_out"]], rows)
