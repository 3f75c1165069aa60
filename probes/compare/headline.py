"""Figures of several models by name: those that a battery is read by, or all that the models have in common."""

import re
from collections.abc import Sequence
from typing import Any

from probes.compare.reading import BATTERIES, Model, Report

# What each battery is read by; patterns of whole names.
HEADLINE = {
    "terrain": (
        r"cosine/mean",
        r"spectrum/participation_ratio",
        r"spectrum/entropy_rank",
        r"pentachoron/cv(_unit)?",
        r"constant/0\.29154",
        r"(digits|letters|number_words)/r",
        r"categories/gap",
    ),
    "topology": (
        r"(self_q|self_v|mlp_up)/\w+/stable_rank",
        r"self_q/\w+/participation_ratio",
        r"self_q/\w+/below_0\.1_rms",
        r"self_qk/\w+/(stable_rank|signed_mass|symmetry)",
        r"between/(self_q|mlp_up)/(encoder|decoder|text|vision)",
        r"positions/\w+/spearman_left",
    ),
    "scales": (
        r"rotation/cosine",
        r"ridge/r2",
        r"cka/(un)?biased",
        r"rsa/spearman",
        r"neighbours/overlap",
        r"source/cosine",
    ),
    "attention": (
        r"sink/entropy_r",
        r"confidence/coherence/partial_r",
        r"confidence(_15)?/(coherence|entropy)/r",
        r"control/uniform/head_sync",
        r"source/layer_00/head_sync",
        r"source/collapse_layer",
        r"collapse/layer",
    ),
    "spectra": (r"dimensions/concentration",),
}


def figures_of(models: Sequence[Model], everything: bool) -> dict[str, list[dict[str, Any]]]:
    """Battery → its figures: name, unit, and by model the value, and mean and sd of its null."""
    found = {}
    for battery in BATTERIES:
        reports = {model.name: model.reports[battery] for model in models if battery in model.reports}
        rows = [_row(name, reports) for name in _names(battery, list(reports.values()), everything)]
        if rows:
            found[battery] = rows
    return found


def _names(battery: str, reports: Sequence[Report], everything: bool) -> list[str]:
    """Names in the order of the reports; a null stands beside its figure, and not by itself."""
    names = dict.fromkeys(name for one in reports for name in one.figures if not one.is_null(name))
    if everything:
        return [name for name in names if all(name in one.figures for one in reports)]
    pattern = re.compile(rf"(original/|modulated/)?({'|'.join(HEADLINE[battery])})")
    return [
        name for name in names if pattern.fullmatch(name) and any(one.figures.get(name) is not None for one in reports)
    ]


def _row(name: str, reports: dict[str, Report]) -> dict[str, Any]:
    values, nulls = {}, {}
    for model, report in reports.items():
        values[model] = report.figures.get(name)
        if name in report.figures and (null := report.null(name)) is not None:
            nulls[model] = null._asdict()
    unit = next((report.units[name] for report in reports.values() if report.units.get(name)), "")
    return {"name": name, "unit": unit, "values": values, "nulls": nulls}
