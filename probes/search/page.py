"""The output of a search: a table of its trials, the best one's command line, and a figure."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from modulant.reports import render
from modulant.reports.choosing import includes_reported
from modulant.reports.drawing.plotting import BLUE, GREY, ORANGE, dress, save
from modulant.reports.table import Table
from modulant.reports.wording import number
from probes.pages import write_json, write_text
from probes.search.space import REPORTED, Sweep

_ENOUGH = 8  # trials, for importances to be more than noise


def write(sweep: Sweep, study: Any, output: Path, command: Callable[[Mapping[str, Any]], list[str]]) -> None:
    """Write search.json, .md and .png from all trials so far, and print where."""
    found = summary(sweep, study, command)
    write_json(output / "search.json", found)
    write_text(output / "search.md", markdown(found))
    if found["best"] is not None:
        save(figure(found), output / "search.png")
        print(f"best: {found['best']['trial']}, {sweep.metric} {number(found['best']['value'], 4, True)}")
    print(output / "search.md")


def summary(sweep: Sweep, study: Any, command: Callable[[Mapping[str, Any]], list[str]]) -> dict[str, Any]:
    """Everything that search.json holds."""
    trials = [
        {
            "trial": f"trial_{trial.number:03d}",
            "state": trial.state.name.lower(),
            "value": trial.value,
            "settings": dict(trial.params),
            "figures": dict(trial.user_attrs),
            "checks": [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)],
        }
        for trial in study.trials
    ]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    best = (max if sweep.maximize else min)(complete, key=lambda trial: trial["value"], default=None)
    return {
        "sweep": sweep.path.name,
        "metric": sweep.metric,
        "goal": "maximize" if sweep.maximize else "minimize",
        "trials": trials,
        "complete": len(complete),
        "best": best,
        "command": None if best is None else ["python", "train.py", *command(best["settings"])[2:]],
        "importances": _importances(study, len(complete)),
    }


def _importances(study: Any, n: int) -> dict[str, float]:
    """Share of the figure's variance among good trials that each setting accounts for (PED-ANOVA)."""
    if n < 3:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    try:
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    except (ValueError, RuntimeError):  # all trials alike, or no setting that differs
        return {}
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def markdown(found: Mapping[str, Any]) -> str:
    """The page for people."""
    settings = list(dict.fromkeys(name for trial in found["trials"] for name in trial["settings"]))
    figures = list(dict.fromkeys(name for trial in found["trials"] for name in trial["figures"] if name != REPORTED))
    rows = [
        [
            f"{trial['trial']}{' ←' if found['best'] and trial['trial'] == found['best']['trial'] else ''}",
            trial["state"],
            number(trial["value"], 4, True),
            *(_cell(trial["settings"].get(name)) for name in settings),
            *(number(trial["figures"].get(name), 4) for name in figures),
        ]
        for trial in found["trials"]
    ]
    shares = [[name, number(share, 2)] for name, share in found["importances"].items()]
    return render.markdown(
        "search",
        **{
            **found,
            "trials": Table(["", "state", found["metric"], *settings, *figures], rows),
            "command": found["command"] and shlex.join(found["command"]),
            "importances": Table(["setting", "share"], shares),
            "few": found["complete"] < _ENOUGH,
            "reported": number((found["best"] or {"figures": {}})["figures"].get(REPORTED), 4, True),
            "overlaps": includes_reported(found["metric"]),
        },
    )


def figure(found: Mapping[str, Any]) -> Figure:
    """The history of the search, and the importances."""
    drawn = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = drawn.subplots(1, 2, width_ratios=(3, 2))
    complete = [(i, trial["value"]) for i, trial in enumerate(found["trials"]) if trial["state"] == "complete"]
    x, y = np.array([i for i, _ in complete]), np.array([value for _, value in complete])
    best = (np.maximum if found["goal"] == "maximize" else np.minimum).accumulate(y)
    left.plot(x, y, "o", color=BLUE, label="a trial")
    left.step(x, best, where="post", color=ORANGE, label="best so far")
    for i, trial in enumerate(found["trials"]):
        if trial["state"] == "pruned" and trial["checks"]:
            left.plot(i, trial["checks"][-1], "x", color=GREY)
    left.axhline(0, color=GREY, linewidth=0.8) if y.min() <= 0 <= y.max() else None
    left.legend(frameon=False)
    left.locator_params(axis="x", integer=True)
    dress(left, "history (×: ended early)", "trial", found["metric"])
    names = list(found["importances"])[::-1]
    right.barh(names, [found["importances"][name] for name in names], color=BLUE)
    dress(right, f"importance of settings, {found['complete']} trials", "share", grid="x")
    if not names:
        right.text(0.5, 0.5, "too few trials", ha="center", va="center", transform=right.transAxes, color=GREY)
    return drawn


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "–" if value is None else str(value)
