r"""Fronts over λ_keep: methods compared where they keep representations equally well.

A lift without preservation is cheap, and one λ_keep does not ask the same of each method. A method's front is its rows
at several λ_keep, by preservation. At a preservation p that two fronts both reach, lifts are interpolated linearly
between neighbouring points,

    lift(p) = Σ_i w_i(p) lift_i,   Σ_i w_i(p) = 1,   Σ_i w_i(p) p_i = p

and so is each bootstrap replicate, by the same weights: the interval of a difference is paired, as in `measure`.
Preservation itself is taken at its mean over seeds.

The treatment is swept over its length of training and over a fixed α too. These sweeps stand beside the fronts, and no
difference is taken along them: lifts at equal preservation compare methods, and these are settings of one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.controls.measure import POPULATIONS, Measured, Replicates, grouped, mean_interval, paired, spread

COMPARED = ("held_out/nouns", "held_out")
EPOCHS, ALPHA = "epochs", "alpha"  # the sweeps

Point = Sequence[Measured]  # the runs of a row


def with_fronts(summary: Mapping[str, Any], runs: Sequence[Measured]) -> dict[str, Any]:
    """The summary of `measure.summarise` with its fronts.

    A row ``<method>_keep_<k>`` on a front gets ``front: <method>``, a row ``epochs_<E>`` of a sweep ``front: epochs``;
    no such row keeps its difference to the treatment, which has another λ_keep or length. ``fronts`` holds ``methods``,
    the rows of each front by preservation, ``sweeps``, as `sweeps_of` returns them, and ``differences`` of the
    treatment to each other method, as `difference` returns them.
    """
    treatment, controls = summary["treatment"], {name: dict(row) for name, row in summary["controls"].items()}
    methods, sweeps = methods_of(controls, treatment), sweeps_of(controls, treatment)
    for name, row in controls.items():
        line = EPOCHS if _has_length(name, treatment) else method_of(name, row["keep"], treatment)
        if line != name:
            row.pop("difference", None)
            if line in methods or name in sweeps.get(line, {}):
                row["front"] = line
    by_row = grouped(runs)
    points = {method: {name: by_row[name] for name in names} for method, names in methods.items()}
    are_paired = paired(runs)
    differences = {
        method: difference(points[treatment], points[method], are_paired)
        for method in methods
        if method != treatment and treatment in methods
    }
    fronts = {"methods": methods, "sweeps": sweeps, "differences": differences}
    return {**summary, "controls": controls, "fronts": fronts}


def method_of(row: str, keep: float | None, treatment: str) -> str:
    """The method that a row is a point of.

    >>> method_of("lora_keep_0.3", 0.3, "field"), method_of("lora", 0.8, "field")
    ('lora', 'lora')
    """
    return row if keep is None or row == treatment else row.removesuffix(f"_keep_{keep:g}")


def methods_of(controls: Mapping[str, Any], treatment: str) -> dict[str, list[str]]:
    """Methods with at least two λ_keep, each with its rows by preservation; of two rows at one λ_keep the first."""
    found: dict[str, dict[float, str]] = {}
    for name, row in controls.items():
        if row["keep"] is not None and row["preservation"] is not None:
            found.setdefault(method_of(name, row["keep"], treatment), {}).setdefault(row["keep"], name)
    return {
        method: sorted(rows.values(), key=lambda name: controls[name]["preservation"]["mean"])
        for method, rows in found.items()
        if len(rows) > 1
    }


def sweeps_of(controls: Mapping[str, Any], treatment: str) -> dict[str, dict[str, float]]:
    """The treatment over its length of training, ``epochs``, and over its fixed ``alpha``: rows with their values.

    Rows stand by their values; of two at one value the first. The treatment is a point of ``epochs`` alone, since its α
    is learned. A sweep has at least two points.
    """
    found: dict[str, dict[float, str]] = {EPOCHS: {}, ALPHA: {}}
    for name, row in controls.items():
        if row["preservation"] is None:
            continue
        if (name == treatment or _has_length(name, treatment)) and row["epochs"] is not None:
            found[EPOCHS].setdefault(row["epochs"], name)
        elif has_fixed_alpha(name) and row["alpha"] is not None:
            found[ALPHA].setdefault(row["alpha"]["mean"], name)
    return {
        sweep: {name: value for value, name in sorted(rows.items())} for sweep, rows in found.items() if len(rows) > 1
    }


def has_fixed_alpha(row: str) -> bool:
    """Whether a row is the treatment at an α that does not learn.

    >>> has_fixed_alpha("fixed_alpha"), has_fixed_alpha("alpha_0.1"), has_fixed_alpha("lora")
    (True, True, False)
    """
    return row == "fixed_alpha" or row.startswith("alpha_")


def _has_length(row: str, treatment: str) -> bool:
    """Whether a row is the treatment with another length of training."""
    return row != treatment and row.startswith("epochs_")


def difference(ours: Mapping[str, Point], theirs: Mapping[str, Point], are_paired: bool = True) -> dict[str, Any]:
    """Our lift − theirs at equal preservation.

    It is taken over the seeds that all points have, at those of our points that lie within their range; where there are
    none although the fronts overlap, at those of their points that lie within ours.

    Returns:
        ``seeds``, and ``points``: of each its ``row``, ``preservation`` and, for each of `COMPARED`, a spread over
        seeds with its interval, or None where a run has no lift. No points where the fronts do not overlap.
    """
    kept = [
        {run.seed: run.figures["preservation"] for run in point if "preservation" in run.figures}
        for point in (*ours.values(), *theirs.values())
    ]
    seeds = sorted(set.intersection(*(set(one) for one in kept)))
    if not seeds:
        return {"seeds": [], "points": []}
    at = np.array([np.mean([one[seed] for seed in seeds]) for one in kept])
    own, other = at[: len(ours)], at[len(ours) :]
    low, high = max(own.min(), other.min()), min(own.max(), other.max())
    inside = [
        [(float(p), row) for p, row in zip(places, front, strict=True) if low <= p <= high]
        for places, front in ((own, ours), (other, theirs))
    ]
    rows = [{run.seed: run for run in point if run.seed in seeds} for point in (*ours.values(), *theirs.values())]
    points = []
    for p, row in sorted(inside[0] or inside[1]):
        signed = np.concatenate([weights(p, own), -weights(p, other)])
        found = {name: _weighted(rows, signed, seeds, name, are_paired) for name in COMPARED}
        points.append({"row": row, "preservation": p, **found})
    return {"seeds": seeds, "points": points}


def weights(at: float, places: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight of each point in the linear interpolation at a place within their range; at most two are not 0.

    >>> weights(0.75, [1.0, 0.0, 0.5])
    array([0.5, 0. , 0.5])
    """
    order = np.argsort(places)
    found = np.empty(len(places))
    found[order] = [np.interp(at, np.asarray(places)[order], unit) for unit in np.eye(len(places))]
    return found


def _weighted(
    rows: Sequence[Mapping[int, Measured]],
    signed: NDArray[np.float64],
    seeds: Sequence[int],
    name: str,
    are_paired: bool,
) -> dict[str, Any] | None:
    """Weighted sum of the rows' lifts, by seed, with the interval of its mean."""
    key, population = f"pearson_lift/{name}", POPULATIONS.index(name)
    used = [(float(weight), row) for weight, row in zip(signed, rows, strict=True) if weight]
    if any(key not in row[seed].figures for _, row in used for seed in seeds):
        return None
    found = spread({seed: sum(weight * row[seed].figures[key] for weight, row in used) for seed in seeds})
    replicates = [_summed([(weight, row[seed].lift) for weight, row in used]) for seed in seeds]
    return found | {"interval": mean_interval(replicates, population) if are_paired else None}


def _summed(parts: Sequence[tuple[float, Replicates | None]]) -> Replicates | None:
    known = [weight * lift for weight, lift in parts if lift is not None]
    if len(known) < len(parts) or len({len(one) for one in known}) > 1:
        return None
    return np.sum(known, axis=0, dtype=np.float64)
