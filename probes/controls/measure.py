r"""Figures of a folder's runs: means over seeds, and intervals from bootstraps that all runs share.

Every run resamples the synsets in the same way, `b = 1 … B`, and leaves the Pearson correlation of the original and of
the modulated encoder on each resample. So with `lift_s,b = modulated_s,b − original_s,b` of seed `s`

    interval of the mean lift    = percentiles over b of mean_s lift_s,b
    interval of a difference     = percentiles over b of mean_s (lift_s,b − lift'_s,b)

the latter over the seeds that both have. What the resamples share cancels in it. Seeds are not resampled: three are too
few for a distribution, and are shown as they are.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modulant.metrics.functional.intervals import percentile_interval
from modulant.reports.populations import has_test_part, names_of_parts, with_parts_of_speech
from modulant.reports.series import known as known_number
from probes.controls.plan import Run, State, report_of, state_of

_FIRST = ("all", "train", "mixed", "held_out")  # the last axis of relational_bootstrap.npz
POPULATIONS = (*_FIRST, "held_out/nouns", "held_out/verbs")  # the last axis of replicates here
LEVEL = 95  # per cent
# How far the original encoder's figures may lie apart between runs: the order of fp32 sums, no more.
SAME_RESAMPLES = 1e-4

Replicates = NDArray[np.float64]
Interval = tuple[float, float]

# Figure → its key among the run's metrics.
FIGURES = {
    "validation_loss": "val/loss",
    "token_accuracy": "val/token_accuracy",
    "spearman_lift": "relational/spearman_lift",
    "gradient": "relational/gradient",
    "preservation": "relational/preservation",
    "pentachoron_cv": "pentachoron/cv",
    "pentachoron_z": "pentachoron/z",
    "simlex999_change": "similarity/simlex999/change",
    "wordsim353_change": "similarity/wordsim353/change",
}
BOUNDED = ("simlex999_change", "wordsim353_change")  # each run has an interval of its own for these


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        figures: those that it has, of `FIGURES`, ``pearson_lift/<population>``, ``alpha``, ``keep`` (the objective's
            λ_keep), ``epochs`` (how many it was trained for) and, of `BOUNDED`, ``<figure>_low`` and ``<figure>_high``.
        original: (replicates, populations) Pearson of the frozen encoder, or None.
        modulated: the same of the modulated one.
        test_part: whether the data has one; its pairs are the held-out population then.
    """

    control: str
    seed: int
    parameters: int
    figures: Mapping[str, float]
    original: Replicates | None
    modulated: Replicates | None
    test_part: bool = False

    @property
    def lift(self) -> Replicates | None:
        """(replicates, populations)"""
        return None if self.original is None or self.modulated is None else self.modulated - self.original


def percentiles(replicates: Replicates) -> Interval | None:
    """The middle `LEVEL` per cent of the finite replicates; None where fewer than half are finite."""
    return percentile_interval(replicates, LEVEL, finite=0.5)


def measure(run: Run) -> Measured | None:
    """The figures of a run; None if it is not whole."""
    report = report_of(run) if state_of(run) is State.WHOLE else None
    return None if report is None else measured(report, run.folder, run.control.name, run.seed)


def measured(report: Mapping[str, Any], folder: Path, name: str, seed: int) -> Measured:
    """The figures of a run folder and its report."""
    metrics = report["run"]["metrics"]
    keys = dict(FIGURES)
    for population in POPULATIONS:
        prefix = "" if population == "all" else f"{population}/"
        keys[f"pearson_lift/{population}"] = f"relational/{prefix}pearson_lift"
    keys |= {f"{name}_{end}": f"{FIGURES[name]}_{end}" for name in BOUNDED for end in ("low", "high")}
    figures = {figure: value for figure, key in keys.items() if known_number(value := metrics.get(key, {}).get("last"))}
    alphas = [value for row in report["alpha"].get("final") or [] for value in row if known_number(value)]
    if alphas:
        figures["alpha"] = sum(alphas) / len(alphas)
    if known_number(keep := report["model"].get("describe", {}).get("objective", {}).get("keep")):
        figures["keep"] = keep
    if known_number(epochs := report["run"].get("epochs")):
        figures["epochs"] = epochs
    original, modulated = _bootstrap(folder)
    parameters = int(report["model"]["parameters"]["trainable"])
    test_part = has_test_part(report.get("relational") or {})
    return Measured(name, seed, parameters, figures, original, modulated, test_part)


def _bootstrap(folder: Path) -> tuple[Replicates | None, Replicates | None]:
    """Replicates of the original and of the modulated encoder; a population that the file lacks is NaN."""
    try:
        # numpy leaves a damaged file open that it has opened itself
        with (folder / "relational_bootstrap.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            original, modulated = (np.asarray(arrays[name], np.float64) for name in ("original", "modulated"))
            columns = list(_FIRST)
            if "further" in arrays:
                columns += arrays["further"].tolist()
                original = np.hstack([original, arrays["further_original"]])
                modulated = np.hstack([modulated, arrays["further_modulated"]])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None, None
    if (
        original.shape != modulated.shape
        or original.ndim != 2
        or original.shape[1] != len(columns)
        or not len(original)
    ):
        return None, None
    chosen = [columns.index(name) if name in columns else len(columns) for name in POPULATIONS]
    unknown = np.full((len(original), 1), np.nan)
    return np.hstack([original, unknown])[:, chosen], np.hstack([modulated, unknown])[:, chosen]


def original_figures(runs: Sequence[Run]) -> dict[str, float]:
    """The frozen encoder's own, from the first run that has measured them."""
    for run in runs:
        report = report_of(run)
        if report is not None and state_of(run) is State.WHOLE:
            metrics = report["run"]["metrics"]
            names = {"pearson": "pearson", "gradient": "gradient", "held_out/pearson": "pearson_held_out"}
            found = {new: metrics.get(f"relational/original/{old}", {}).get("last") for old, new in names.items()}
            found["pentachoron_cv"] = (report["pentachoron"].get("base") or {}).get("cv")
            return {name: value for name, value in found.items() if known_number(value)}
    return {}


def paired(runs: Sequence[Measured]) -> bool:
    """Whether all bootstraps are of the same resamples: the frozen encoder's figures on them are equal."""
    originals = [run.original for run in runs if run.original is not None]
    return all(
        one.shape == originals[0].shape and np.allclose(one, originals[0], rtol=0, atol=SAME_RESAMPLES, equal_nan=True)
        for one in originals[1:]
    )


def names_of(runs: Sequence[Measured]) -> dict[str, str]:
    """Populations and their names; the held-out one is called test where it is that of all runs with a lift."""
    test_part = {run.test_part for run in runs if "pearson_lift/all" in run.figures} == {True}
    return with_parts_of_speech(names_of_parts(test_part))


def summarise(runs: Sequence[Measured], treatment: str, original: Mapping[str, float]) -> dict[str, Any]:
    """All figures of a folder, as figures.json holds them; controls in the order of their first run."""
    by_control = grouped(runs)
    treated = by_control.get(treatment, [])
    are_paired = paired(runs)
    controls = {}
    for name, own in by_control.items():
        controls[name] = {
            "parameters": own[0].parameters,
            "seeds": [run.seed for run in own],
            "keep": own[0].figures.get("keep"),
            "epochs": own[0].figures.get("epochs"),
            **{key: _over_seeds(own, key) for key in (*FIGURES, "alpha")},
            "pearson_lift": {p: _lift(own, i) for i, p in enumerate(POPULATIONS)},
        }
        if name != treatment and treated:
            controls[name]["difference"] = {
                p: difference(treated, own, i, are_paired) for i, p in enumerate(POPULATIONS)
            }
    counts = {len(run.original) for run in runs if run.original is not None}
    return {
        "treatment": treatment,
        "level": LEVEL,
        "replicates": counts.pop() if len(counts) == 1 else None,
        "paired": are_paired,
        "populations": names_of(runs),
        "original": dict(original),
        "controls": controls,
    }


def grouped(runs: Sequence[Measured]) -> dict[str, list[Measured]]:
    """Runs by their control, in the order of its first."""
    found: dict[str, list[Measured]] = {}
    for run in runs:
        found.setdefault(run.control, []).append(run)
    return found


def _over_seeds(runs: Sequence[Measured], key: str) -> dict[str, Any] | None:
    own = [run for run in runs if key in run.figures]
    if not own:
        return None
    found = spread({run.seed: run.figures[key] for run in own})
    if key not in BOUNDED or not all({f"{key}_low", f"{key}_high"} <= run.figures.keys() for run in own):
        return found
    return found | {
        "interval": tuple(sum(run.figures[f"{key}_{e}"] for run in own) / len(own) for e in ("low", "high"))
    }


def spread(values: Mapping[int, float]) -> dict[str, Any]:
    """Mean, extremes and the values themselves, by seed."""
    held = list(values.values())
    return {"mean": sum(held) / len(held), "min": min(held), "max": max(held), "seeds": dict(values)}


def _lift(runs: Sequence[Measured], population: int) -> dict[str, Any] | None:
    found = _over_seeds(runs, f"pearson_lift/{POPULATIONS[population]}")
    if found is None:
        return None
    lifts = [run.lift for run in runs if run.figures.keys() & {f"pearson_lift/{POPULATIONS[population]}"}]
    return found | {"interval": mean_interval(lifts, population)}


def mean_interval(lifts: Sequence[Replicates | None], population: int) -> Interval | None:
    """Interval of the mean over seeds; None where a seed has no replicates, or another number of them."""
    known = [lift[:, population] for lift in lifts if lift is not None]
    if not known or len(known) < len(lifts) or len({len(one) for one in known}) > 1:
        return None
    return percentiles(np.mean(known, axis=0))


def difference(
    treated: Sequence[Measured], control: Sequence[Measured], population: int, are_paired: bool = True
) -> dict[str, Any] | None:
    """Treatment − control, over the seeds that both have; None where there are none.

    Args:
        population: index in `POPULATIONS`.
        are_paired: whether the bootstraps are of the same resamples; without that there is no interval.
    """
    key = f"pearson_lift/{POPULATIONS[population]}"
    ours, theirs = ({run.seed: run for run in runs if key in run.figures} for runs in (treated, control))
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds:
        return None
    found = spread({seed: ours[seed].figures[key] - theirs[seed].figures[key] for seed in seeds})
    replicates: list[Replicates | None] = []
    for seed in seeds:
        a, b = ours[seed].lift, theirs[seed].lift
        replicates.append(a - b if a is not None and b is not None and a.shape == b.shape else None)
    return found | {"interval": mean_interval(replicates, population) if are_paired else None}
