"""Several runs as tables: rows for Markdown and HTML, and one CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from modulant.reports.wording import duration, number
from probes.controls.table import POPULATION_NAMES, against_control, against_zero
from probes.pages import table

Found = Mapping[str, Any]
Rows = list[list[str]]

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
    "Intervals are 95%, by a bootstrap over synsets: they say how a figure would vary with other synsets, not with "
    "another seed. A difference is paired: both runs are taken on the same resamples, and what these share cancels."
)


def markdown(found: Found) -> str:
    """The page."""
    first = found["first"]
    parts = [f"# {len(found['runs'])} run{'s' * (len(found['runs']) != 1)}"]
    parts += [f"## What differs\n\n{table(*settings(found))}"] if found["differs"] else []
    parts += [f"## What came of it\n\n{table(*figures(found))}"]
    if (head_rows := lifts(found))[1]:
        parts += [f"## Lift of Pearson\n\n{table(*head_rows)}"]
    if (head_rows := differences(found))[1]:
        parts += [f"## Difference from {first}\n\n{table(*head_rows)}"]
        parts += ["\n".join(f"- {line}" for line in verdicts(found)), NOTE]
    if found["passed_over"]:
        parts += ["Passed over:\n\n" + "\n".join(f"- {line}" for line in found["passed_over"])]
    return "\n\n".join(parts) + "\n"


def settings(found: Found) -> tuple[list[str], Rows]:
    """The keys that differ, by run: whatever there is less of goes across."""
    keys, runs = found["differs"], found["runs"]
    cells = [[_setting(run["settings"][key]) if key in run["settings"] else "–" for key in keys] for run in runs]
    if len(keys) <= len(runs):
        return ["", *keys], [[run["name"], *row] for run, row in zip(runs, cells, strict=True)]
    across = list(zip(*cells, strict=True))
    return ["", *(run["name"] for run in runs)], [[key, *row] for key, row in zip(keys, across, strict=True)]


def figures(found: Found) -> tuple[list[str], Rows]:
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
    return header, rows


def lifts(found: Found) -> tuple[list[str], Rows]:
    """Lift of each run on each population."""
    return _by_population(found, "lift")


def differences(found: Found) -> tuple[list[str], Rows]:
    """The same minus the first run's, of the others."""
    return _by_population(found, "difference")


def _by_population(found: Found, key: str) -> tuple[list[str], Rows]:
    rows = [
        [run["name"], *(told(run[key].get(population)) for population in POPULATION_NAMES)]
        for run in found["runs"]
        if run[key]
    ]
    return ["", *POPULATION_NAMES.values()], rows


def verdicts(found: Found) -> list[str]:
    """What the held-out figures say of each run, and of each against the first, in words."""
    lines = []
    for run in found["runs"]:
        if lift := run["lift"].get("held_out"):
            lines.append(f"{run['name']}, held-out: {told(lift)}: {against_zero(_one_seed(lift))}")
        if against := run["difference"].get("held_out"):
            said = against_control(_one_seed(against)).replace("this control", found["first"])
            lines.append(f"{run['name']} − {found['first']}, held-out: {told(against)}: {said}")
    sampled = [run["name"] for run in found["runs"] if run["pairs"] not in (None, "all")]
    if sampled:
        lines.append(f"{', '.join(sampled)}: lifts over a sample of the pairs, their intervals over all of them")
    return lines


def told(figure: Mapping[str, Any] | None) -> str:
    """
    >>> told({"value": 0.02, "interval": (0.01, 0.03)}), told(None)
    ('+0.0200 [+0.0100, +0.0300]', '–')
    """
    if figure is None:
        return "–"
    ends = figure["interval"]
    return number(figure["value"], 4, True) + (f" [{', '.join(number(end, 4, True) for end in ends)}]" if ends else "")


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
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, fieldnames=columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _one_seed(figure: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "interval": figure["interval"],
        "min": figure["value"],
        "max": figure["value"],
        "seeds": {0: figure["value"]},
    }


def _setting(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
