"""What several run folders say, and how each differs from the first: settings, figures, paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from modulant.reports.run.folder import metrics_of, report_of
from modulant.reports.series import Series
from probes.configurations import leaves
from probes.controls.measure import POPULATIONS, Measured, difference, measured, names_of, paired, percentiles

# Paths and loggers: they do not belong to the experiment.
_NOT_COMPARED = ("trainer.logger", "trainer.default_root_dir", "data.prompts")


@dataclass
class Run:
    """A run folder, read."""

    name: str
    folder: Path
    report: Mapping[str, Any]
    metrics: Mapping[str, Series]
    settings: Mapping[str, Any]
    measured: Measured


def read(folder: Path) -> Run:
    """A run folder.

    Raises:
        ValueError: it is none, or what lies in it cannot be read.
    """
    report = report_of(folder)
    config, settings = folder / "config.yaml", {}
    if config.is_file():
        try:
            settings = leaves(yaml.safe_load(config.read_text(encoding="utf-8")) or {})
        except (yaml.YAMLError, OSError, ValueError) as error:
            raise ValueError(f"{config} cannot be read ({' '.join(str(error).split())})") from error
    # every run as seed 0: here the first is compared with each other one, whatever their seeds
    found = measured(report, folder, folder.name, 0)
    return Run(folder.name, folder, report, metrics_of(folder, dict(report)), settings, found)


def compare(runs: Sequence[Run]) -> dict[str, Any]:
    """All that runs.json holds, one row a run, in their order."""
    first = runs[0]
    differing = differences_of([run.settings for run in runs])
    return {
        "first": first.name,
        "differs": differing,
        "populations": names_of([run.measured for run in runs]),
        "runs": [_row(run, first, differing) for run in runs],
    }


def differences_of(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys that do not have the same value everywhere.

    >>> differences_of([{"model.lr": 1, "a": 2}, {"model.lr": 3, "a": 2}, {"a": 2}])
    ['model.lr']
    """
    keys = dict.fromkeys(key for one in settings for key in one if not key.startswith(_NOT_COMPARED))
    missing = object()
    return [key for key in keys if any(one.get(key, missing) != settings[0].get(key, missing) for one in settings[1:])]


def _row(run: Run, first: Run, differing: Sequence[str]) -> dict[str, Any]:
    report = run.report
    exact = (report["run"]["metrics"].get("val/exact_match") or {}).get("last")
    same_resamples = paired([first.measured, run.measured])
    lifts, against = {}, {}
    for column, population in enumerate(POPULATIONS):
        value = run.measured.figures.get(f"pearson_lift/{population}")
        if value is not None:
            replicates = run.measured.lift
            lifts[population] = {
                "value": value,
                "interval": None if replicates is None else percentiles(replicates[:, column]),
            }
        if run is not first:
            found = difference([run.measured], [first.measured], column, same_resamples)
            if found is not None:
                against[population] = {"value": found["mean"], "interval": found["interval"]}
    figures = dict(run.measured.figures) | {"seconds": report["time"]["total_s"], "steps": report["run"]["steps"]}
    return {
        "name": run.name,
        "folder": str(run.folder),
        "learns": report["model"].get("learns") or report["model"]["module"],
        "stage": report["run"]["stage"],
        "outcome": report["run"]["outcome"],
        "seed": report["run"]["seed"],
        "parameters": run.measured.parameters,
        "pairs": report["relational"].get("pairs"),
        "settings": {key: run.settings[key] for key in differing if key in run.settings},
        "figures": figures | ({"exact_match": exact} if exact is not None else {}),
        "lift": lifts,
        "difference": against,
    }
