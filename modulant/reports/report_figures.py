"""Which figures a report can show: finds the series in what was logged and measured, and draws what is there."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from modulant.reports import figures
from modulant.reports.report_rows import before_and_after
from modulant.reports.series import Series

_ALPHA = re.compile(r"alpha/layer_(\d+)(?:_(\w+))?")
_BAND = re.compile(r"band/([\d.]+)_([\d.]+)")
REFERENCES = {"static": "static embeddings", "random": "randomly initialised encoder"}


def draw(report: Mapping[str, Any], metrics: Mapping[str, Series], folder: Path, suffix: str = "") -> dict[str, str]:
    """Draws what can be drawn into `folder/figures`; name → path as seen from `folder`."""
    over_time = metrics if report["run"]["stage"] == "fit" else {}
    drawn = {
        "loss": _loss(over_time),
        "alpha": _alpha(report["alpha"], over_time),
        "alpha_final": _final(report["alpha"]),
        "relational": _relational(report["relational"]),
        "bands": _bands(report["relational"]),
        "pentachoron": _pentachoron(report["pentachoron"]),
    }
    paths = {}
    for name, figure in drawn.items():
        if figure is not None:
            path = folder / "figures" / f"{name}{suffix}.png"
            figures.save(figure, path)
            paths[name] = path.relative_to(folder).as_posix()
    return paths


def _loss(metrics: Mapping[str, Series]) -> Figure | None:
    train = finite_points(metrics.get("train/loss_step") or metrics.get("train/loss") or [])
    validation = finite_points(metrics.get("val/loss") or [])
    return figures.loss(train, validation) if train or validation else None


def _alpha(alpha: Mapping[str, Any], metrics: Mapping[str, Series]) -> Figure | None:
    mean, experts = alpha_series(alpha, metrics)
    return figures.alpha_over_steps(mean, experts) if mean else None


def alpha_series(
    alpha: Mapping[str, Any], metrics: Mapping[str, Series]
) -> tuple[dict[int, Series], dict[str, dict[int, Series]]]:
    """Layer → series of the mean over experts; expert → layer → series, where the log tells experts apart."""
    mean: dict[int, Series] = {}
    experts: dict[str, dict[int, Series]] = {name: {} for name in alpha["experts"]}
    for key, series in metrics.items():
        if (match := _ALPHA.fullmatch(key)) and (points := finite_points(series)):
            layer, expert = int(match[1]), match[2]
            (mean if expert is None else experts.setdefault(expert, {}))[layer] = points
    return mean, {name: layers for name, layers in experts.items() if layers}


def _final(alpha: Mapping[str, Any]) -> Figure | None:
    if not alpha.get("final"):
        return None
    starts = {value for row in alpha.get("initial") or [] for value in row}
    # one dashed line says it only when all have started at one value
    initial = starts.pop() if starts and max(starts) - min(starts) < 1e-9 else None
    return figures.final_alpha(alpha["final"], alpha["layers"], alpha["experts"], initial)


def _relational(relational: Mapping[str, Any]) -> Figure | None:
    history: Sequence[Mapping[str, float]] = relational.get("history") or []
    modulated = {kind: history_of(history, kind) for kind in ("pearson", "spearman")}
    if not any(modulated.values()):
        return None
    baseline = relational.get("baseline") or {}
    references = {name: baseline[key] for key, name in REFERENCES.items() if key in baseline}
    lifts = {
        kind: {name: history_of(history, f"{name}/{kind}_lift") for name in figures.POPULATIONS} for kind in modulated
    }
    lifts = {kind: {name: series for name, series in by.items() if series} for kind, by in lifts.items()}
    return figures.relational(modulated, baseline.get("original") or {}, references, lifts)


def _bands(relational: Mapping[str, Any]) -> Figure | None:
    before, after = bands_of(relational)
    return figures.bands(before, after) if before else None


def bands_of(relational: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Band of path similarity → mean cosine before and after, from near to far."""
    before, after = before_and_after(relational)
    names = {key: f"{match[1]}–{match[2]}" for key in before if (match := _BAND.fullmatch(key)) and key in after}
    ordered = sorted(names, reverse=True)
    return {names[key]: before[key] for key in ordered}, {names[key]: after[key] for key in ordered}


def _pentachoron(pentachoron: Mapping[str, Any]) -> Figure | None:
    history = pentachoron.get("history") or []
    cv = history_of(history, "cv")
    if not cv:
        return None
    last = history[-1]
    reference = pentachoron.get("reference")
    name = reference if isinstance(reference, str) else "reference"
    null = (last["null"], last["null_sd"]) if "null" in last and "null_sd" in last else None
    return figures.pentachoron(cv, last.get("reference"), pentachoron.get("tolerance"), null, name)


def history_of(history: Sequence[Mapping[str, float]], key: str) -> Series:
    """One figure of a callback's checks, by step."""
    return finite_points([(int(check["step"]), check[key]) for check in history if check.get(key) is not None])


def finite_points(series: Sequence[tuple[int, float]]) -> Series:
    return [(step, value) for step, value in series if math.isfinite(value)]
