"""Several runs as tables for Markdown and HTML, and as one CSV."""

from collections.abc import Mapping, Sequence
from typing import Any

from modulant.reports import render
from modulant.reports.populations import in_short
from modulant.reports.table import Table
from modulant.reports.wording import duration, number, with_interval
from probes.controls.table import against_control, against_zero
from probes.pages import as_csv_text

Found = Mapping[str, Any]

# Figure → its title in the table, decimals, and whether a sign belongs to it.
FIGURES = {
    "validation_loss": ("validation loss", 4, False),
    "exact_match": ("exact match", 4, False),
    "preservation": ("preservation", 4, False),
    "pentachoron_cv": ("CV", 4, False),
    "pentachoron_z": ("its z", 1, True),
    "alpha": ("mean α", 4, False),
}
NOTE = (
    "Intervals are 95%, by a bootstrap over synsets: they show how a figure would vary with other synsets, not with "
    "another seed. A difference is paired: both runs are taken on the same resamples, and what these share cancels."
)


def markdown(found: Found, figure: str = "") -> str:
    """The page, with a figure where there is one."""
    return render.markdown("runs", figure=figure, **content(found))


def content(found: Found) -> dict[str, Any]:
    """The content of the Markdown page and of the HTML page."""
    return {
        "count": len(found["runs"]),
        "first": found["first"],
        "settings": settings(found),
        "figures": figures(found),
        "lifts": _by_population(found, "lift"),
        "differences": _by_population(found, "difference"),
        "verdicts": verdicts(found),
        "note": NOTE,
        "passed_over": found["passed_over"],
    }


def settings(found: Found) -> Table:
    """The keys that differ, by run; the fewer of the two are the columns."""
    if not found["differs"]:
        return Table([], [])
    keys, runs = found["differs"], found["runs"]
    cells = [[_setting(run["settings"][key]) if key in run["settings"] else "–" for key in keys] for run in runs]
    if len(keys) <= len(runs):
        rows = [[run["name"], *row] for run, row in zip(runs, cells, strict=True)]
        return Table(["", *keys], rows, words=1 + len(keys))
    across = zip(*cells, strict=True)
    rows = [[key, *row] for key, row in zip(keys, across, strict=True)]
    return Table(["", *(run["name"] for run in runs)], rows, words=1 + len(runs))


def figures(found: Found) -> Table:
    """One row a run; figures that no run has are left out."""
    held = {key: title for key, title in FIGURES.items() if any(key in run["figures"] for run in found["runs"])}
    header = ["", "learns", "parameters", "outcome", "steps", "time", *(title for title, *_ in held.values())]
    rows = [
        [
            run["name"],
            str(run["learns"]),
            f"{run['parameters']:,}",
            run["outcome"] if run["stage"] == "fit" else f"{run['stage']}, {run['outcome']}",
            str(run["figures"]["steps"]),
            duration(run["figures"]["seconds"]),
            *(number(run["figures"].get(key), *held[key][1:]) for key in held),
        ]
        for run in found["runs"]
    ]
    return Table(header, rows, words=2)


def _by_population(found: Found, key: str) -> Table:
    names = {one: found["populations"][one] for one in ("all", "train", "mixed", "held_out")}
    rows = [[run["name"], *(lift_text(run[key].get(one)) for one in names)] for run in found["runs"] if run[key]]
    return Table(["", *names.values()], rows)


def verdicts(found: Found) -> list[str]:
    """What the held-out figures say of each run, and of each compared with the first, in words."""
    lines, held_out = [], in_short(found["populations"])
    for run in found["runs"]:
        if lift := run["lift"].get("held_out"):
            lines.append(f"{run['name']}, {held_out}: {lift_text(lift)}: {against_zero(_one_seed(lift))}")
        if against := run["difference"].get("held_out"):
            said = against_control(_one_seed(against)).replace("this control", found["first"])
            lines.append(f"{run['name']} − {found['first']}, {held_out}: {lift_text(against)}: {said}")
    sampled = [run["name"] for run in found["runs"] if run["pairs"] not in (None, "all")]
    if sampled:
        lines.append(f"{', '.join(sampled)}: lifts over a sample of the pairs, their intervals over all of them")
    return lines


def lift_text(figure: Mapping[str, Any] | None) -> str:
    """A lift and its interval.

    >>> lift_text({"value": 0.02, "interval": (0.01, 0.03)}), lift_text(None)
    ('+0.0200 [+0.0100, +0.0300]', '–')
    """
    return with_interval(figure["value"], figure["interval"]) if figure else "–"


def as_csv(found: Found) -> str:
    """One row a run, one column a figure or a setting that differs."""
    rows = []
    for run in found["runs"]:
        row = {key: run[key] for key in ("name", "folder", "learns", "stage", "outcome", "seed", "parameters")}
        row |= {key: value for key, value in run["figures"].items() if not key.startswith("pearson_lift/")}
        for what in ("lift", "difference"):
            for population, figure in run[what].items():
                row[f"{what}/{population}"] = figure["value"]
                if figure["interval"]:
                    row[f"{what}/{population}_low"], row[f"{what}/{population}_high"] = figure["interval"]
        rows.append(row | {f"settings/{key}": _setting(value) for key, value in run["settings"].items()})
    return as_csv_text(rows)


def _one_seed(figure: Mapping[str, Any]) -> dict[str, Any]:
    value = figure["value"]
    return {"interval": figure["interval"], "min": value, "max": value, "seeds": {0: value}}


def _setting(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
