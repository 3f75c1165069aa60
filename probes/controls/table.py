"""A folder's figures as a page, a CSV, and sentences that say what they mean; nothing is measured here."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modulant.reports.wording import number
from probes.pages import table

Summary = Mapping[str, Any]

POPULATION_NAMES = {
    "all": "all pairs",
    "train": "train × train",
    "mixed": "train × held-out",
    "held_out": "held-out × held-out",
}
_SHORT = {"all": "all pairs", "train": "train", "mixed": "train × held-out", "held_out": "held-out"}
# Figure → its title in the table, decimals, and whether a sign belongs to it.
_OTHERS = {
    "validation_loss": ("validation loss", 4, False),
    "token_accuracy": ("token accuracy", 4, False),
    "spearman_lift": ("Spearman lift", 4, True),
    "gradient": ("gradient", 4, False),
    "preservation": ("preservation", 4, False),
    "pentachoron_cv": ("pentachoron CV", 4, False),
    "pentachoron_z": ("its z", 1, False),
    "alpha": ("final α", 4, False),
}
_JUDGED = ("held_out", "all")


def markdown(summary: Summary, failed: Sequence[str] = (), figures: Sequence[str] = ()) -> str:
    """The page.

    Args:
        failed: a line for each run that is missing.
        figures: paths of the figures, as seen from the page.
    """
    treatment, controls = summary["treatment"], summary["controls"]
    parts = [f"# {treatment} and its controls"]
    if not controls:
        parts.append("No run has ended yet.")
    else:
        parts += ["\n".join(f"- {line}" for line in verdicts(summary))]
        parts += [f"![{_alt(path)}]({path})" for path in figures]
        parts += ["## Lift of Pearson with path similarity", _lifts(summary), caption(summary)]
        if any("difference" in control for control in controls.values()):
            parts += [f"## {treatment} − control", _differences(summary)]
        parts += ["## Task and geometry", _others(summary), _others_caption(summary)]
    if failed:
        parts += ["## Runs that are missing", "\n".join(f"- {line}" for line in failed)]
    return "\n\n".join(parts) + "\n"


def _alt(path: str) -> str:
    return "Lift and validation loss against α" if "alpha" in path else "Lift of each control, with intervals"


def cell(spread: Mapping[str, Any] | None, digits: int = 4, signed: bool = False) -> str:
    """Mean, its interval in brackets, and least … largest over seeds.

    >>> cell({"mean": 0.02, "min": 0.01, "max": 0.03, "seeds": {0: 0.01, 1: 0.03}, "interval": (0.015, 0.025)}, 3)
    '0.020 [0.015, 0.025], 0.010 … 0.030'
    """
    if spread is None:
        return "–"
    text = number(spread["mean"], digits, signed)
    if spread.get("interval"):
        text += f" [{', '.join(number(end, digits, signed) for end in spread['interval'])}]"
    if len(spread["seeds"]) > 1:
        text += f", {number(spread['min'], digits, signed)} … {number(spread['max'], digits, signed)}"
    return text


def _lifts(summary: Summary) -> str:
    header = ["", "trained parameters", "seeds", *POPULATION_NAMES.values()]
    rows = [
        [
            name,
            f"{control['parameters']:,}",
            ", ".join(map(str, control["seeds"])),
            *(cell(control["pearson_lift"][p], signed=True) for p in POPULATION_NAMES),
        ]
        for name, control in summary["controls"].items()
    ]
    return table(header, rows)


def _differences(summary: Summary) -> str:
    rows = [
        [name, *(cell(control["difference"][p], signed=True) for p in POPULATION_NAMES)]
        for name, control in summary["controls"].items()
        if "difference" in control
    ]
    return table(["", *POPULATION_NAMES.values()], rows)


def _others(summary: Summary) -> str:
    held = {
        key: title
        for key, title in _OTHERS.items()
        if any(control[key] is not None for control in summary["controls"].values())
    }
    rows = [
        [name, *(cell(control[key], *_OTHERS[key][1:]) for key in held)]
        for name, control in summary["controls"].items()
    ]
    if summary["original"]:
        known = {"preservation": 1.0, "spearman_lift": 0.0} | dict(summary["original"])
        rows.insert(0, ["original encoder", *(number(known.get(key), *_OTHERS[key][1:]) for key in held)])
    return table(["", *(title for title, *_ in held.values())], rows)


def caption(summary: Summary) -> str:
    """What an interval covers, and what it does not."""
    replicates = f"{summary['replicates']:,}" if summary["replicates"] else "of each run's"
    text = (
        f"Mean over seeds [{summary['level']}% interval of that mean], least … largest over seeds. The interval is a "
        f"percentile bootstrap over synsets ({replicates} replicates): it says how far the figure depends on which "
        "synsets there are. It does not cover the chance in training: the seeds show that, as least and largest."
    )
    if any("difference" in control for control in summary["controls"].values()):
        text += (
            " A difference is taken seed by seed and, for its interval, replicate by replicate: all runs share the "
            "split and the resamples."
        )
    if not summary["paired"]:
        text += (
            " **No interval of a difference is given: the original encoder's figures on the resamples are not the same "
            "in all runs, so these runs do not share them.**"
        )
    missing = [n for n, c in summary["controls"].items() if (c["pearson_lift"]["all"] or {}).get("interval") is None]
    if missing:
        text += f" No interval for {', '.join(missing)}: a run of it has left no bootstrap."
    original = summary["original"]
    if "pearson" in original:
        held = f", {number(original['pearson_held_out'])} on held-out" if "pearson_held_out" in original else ""
        text += f" The original encoder's Pearson is {number(original['pearson'])}{held}."
    return text


def _others_caption(summary: Summary) -> str:
    return (
        "Mean, least … largest over seeds. Loss in nats per token; gradient: mean cosine at similarity ≥ 0.25 minus "
        "below 0.10; preservation: mean cosine with the original representation; z: the CV against Gaussian points; "
        "α: mean over layers and experts."
    )


def verdicts(summary: Summary) -> list[str]:
    """What the figures say, in a sentence each: the treatment against nothing, then against each control."""
    treatment = summary["treatment"]
    treated = summary["controls"].get(treatment)
    if treated is None:
        return [f"no run of {treatment} has ended, so nothing can be compared with it"]
    lines = [
        f"{treatment} on {_SHORT[p]}: {cell(lift, signed=True)}: {against_zero(lift)}"
        for p in _JUDGED
        if (lift := treated["pearson_lift"][p]) is not None
    ]
    for name, control in summary["controls"].items():
        for p in _JUDGED:
            found = control.get("difference", {}).get(p)
            if found is not None:
                told = f"{number(found['mean'], 4, True)}{_interval(found)}"
                lines.append(f"{treatment} − {name} on {_SHORT[p]}: {told}: {against_control(found)}")
        if name != treatment and control.get("difference", {}).get("all") is None:
            lines.append(f"{treatment} − {name}: no seed that both have")
    return lines


def _interval(spread: Mapping[str, Any]) -> str:
    interval = spread.get("interval")
    return f" [{', '.join(number(end, 4, True) for end in interval)}]" if interval else ""


def against_zero(lift: Mapping[str, Any]) -> str:
    """What a lift and its interval say of it.

    >>> against_zero({"interval": (-0.001, 0.002), "min": -0.001, "max": 0.001, "seeds": {0: 0.0}})
    'not distinguishable from no lift (one seed)'
    """
    said = _side(lift, "a lift", "a loss", "not distinguishable from no lift")
    return said + _seeds(lift)


def against_control(difference: Mapping[str, Any]) -> str:
    """What a difference and its interval say of the treatment.

    >>> against_control({"interval": (0.004, 0.02), "min": 0.01, "max": 0.014, "seeds": {0: 0.01, 1: 0.014}})
    'larger than this control'
    """
    said = _side(
        difference, "larger than this control", "smaller than this control", "not distinguishable from this control"
    )
    return said + _seeds(difference)


def _side(spread: Mapping[str, Any], above: str, below: str, neither: str) -> str:
    interval = spread.get("interval")
    if not interval:
        return "no interval, so nothing is said"
    low, high = interval
    return above if low > 0 else below if high < 0 else neither


def _seeds(spread: Mapping[str, Any]) -> str:
    """A sign that not all seeds share is no finding yet, whatever the synsets say."""
    if len(spread["seeds"]) == 1:
        return " (one seed)"
    decided = spread.get("interval") and not spread["interval"][0] <= 0 <= spread["interval"][1]
    return " in the mean, but not with every seed" if decided and spread["min"] * spread["max"] <= 0 else ""


def as_csv(summary: Summary) -> str:
    """One row a control, one column a figure."""
    rows = [dict(_flat(name, control)) for name, control in summary["controls"].items()]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(name: str, control: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from (
        ("control", name),
        ("parameters", control["parameters"]),
        ("seeds", " ".join(map(str, control["seeds"]))),
    )
    for population in POPULATION_NAMES:
        for what in ("pearson_lift", "difference"):
            yield from _columns(f"{what}/{population}", (control.get(what) or {}).get(population))
    for key in _OTHERS:
        yield from _columns(key, control[key])


def _columns(key: str, spread: Mapping[str, Any] | None) -> Iterator[tuple[str, float]]:
    if spread is not None:
        yield from ((key, spread["mean"]), (f"{key}_min", spread["min"]), (f"{key}_max", spread["max"]))
        if spread.get("interval"):
            yield from ((f"{key}_low", spread["interval"][0]), (f"{key}_high", spread["interval"][1]))
