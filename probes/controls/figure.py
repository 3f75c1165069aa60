"""The figures of a folder of controls: a forest plot of lifts, fronts over λ_keep, epochs and α, and α alone.

A title says what is seen, in numbers. Nothing here touches pyplot or any other global state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modulant.reports.drawing import plotting
from modulant.reports.drawing.chart import Axis, Chart, Interval
from modulant.reports.drawing.figures import draw
from modulant.reports.drawing.plotting import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, VERMILION, dress
from modulant.reports.populations import in_short
from modulant.reports.wording import number
from probes.controls.fronts import ALPHA, EPOCHS, has_fixed_alpha
from probes.controls.labels import Label, place_labels
from probes.controls.table import off_fronts

PANELS = ("train", "mixed", "held_out")
_COLOURS = {"train": BLUE, "mixed": ORANGE, "held_out": VERMILION}

_NOUNS = "held_out/nouns"
_FRONT_PANELS = (("preservation", _NOUNS), ("preservation", "held_out"),
                 ("simlex999_change", _NOUNS), ("wordsim353_change", _NOUNS))  # fmt: skip
_FRONT_AXES = {
    "preservation": "preservation p (mean cosine with the original)",
    "simlex999_change": "change of Spearman with SimLex-999",
    "wordsim353_change": "change of Spearman with WordSim-353",
}
_METHODS = (BLUE, VERMILION, GREEN, PURPLE)  # the treatment, LoRA, IA³ and full
# Larger markers, below those of the fronts: the treatment is a point of both.
_SWEEPS = {EPOCHS: (INK, {"linestyle": "--", "marker": "s", "markersize": 7, "zorder": 1.9}),
           ALPHA: (GREY, {"linestyle": ":", "marker": "D", "markersize": 6, "zorder": 1.9})}  # fmt: skip
_SWEPT = {EPOCHS: "{:g} ep.", ALPHA: "α {:.3g}"}

Summary = Mapping[str, Any]


@dataclass(frozen=True)
class _Line:
    """A line among the fronts.

    Attributes:
        points: rows, each with what stands at it.
        style: of the line, further, as matplotlib names it.
    """

    label: str
    points: Sequence[tuple[str, Mapping[str, Any]]]
    colour: str
    style: Mapping[str, Any] = field(default_factory=dict)


def forest(summary: Summary) -> Figure | None:
    """One row a control, one panel a population: mean with its interval, seeds as dots; None without any lift."""
    controls = {n: c["pearson_lift"] for n, c in off_fronts(summary).items() if c["pearson_lift"]["all"]}
    if not controls:
        return None
    treatment = summary["treatment"]
    shown = (*PANELS, "held_out/nouns") if any(lifts.get("held_out/nouns") for lifts in controls.values()) else PANELS
    views = {
        summary["populations"][population]: [
            Interval(
                lift["mean"],
                lift["interval"] or (lift["mean"],) * 2,
                name,
                "@blue" if name == treatment else "@ink",
                list(lift["seeds"].values()) if len(lift["seeds"]) > 1 else (),
                guide=name == treatment,
            )
            for name, lifts in controls.items()
            if (lift := lifts.get(population)) is not None
        ]
        for population in shown
    }
    title, rows, lift = _title(summary, controls), Axis(names=list(controls)), Axis("lift of Pearson")
    figure = draw([Chart("controls", title, views, rows, lift)])
    for label in (label for axis in figure.axes for label in axis.get_yticklabels()):
        if label.get_text() == treatment:
            label.set(color=BLUE, fontweight="bold")
    figure.supxlabel(
        f"line: {summary['level']}% interval over synsets of the mean over seeds;  small dots: seeds;  "
        f"dashed: {treatment}",
        fontsize=9,
        color=GREY,
    )
    return figure


def _title(summary: Summary, controls: Mapping[str, Any]) -> str:
    name = summary["treatment"]
    means = {n: lifts["held_out"]["mean"] for n, lifts in controls.items() if lifts["held_out"]}
    own = means.pop(name, None)
    said = [f"{name} {number(own, 4, True)}"] if own is not None else []
    if means:
        least, most = (number(value, 4, True) for value in (min(means.values()), max(means.values())))
        said.append(f"its controls {least} to {most}" if len(means) > 1 else f"{next(iter(means))} {most}")
    where = summary["populations"]["held_out"]
    return f"Lift on {where}: {', '.join(said)}" if said else "Lift of Pearson with path similarity"


def front(summary: Summary) -> Figure | None:
    """Lift against preservation and against changes of rated similarity.

    One line a method, one point a λ_keep; one line of the treatment over epochs, dashed, and one over fixed α, dotted.
    None without any of them. Panels of what was not measured are left out.
    """
    lines = _lines(summary)
    everything = [row for line in lines for _, row in line.points]
    panels = [
        (x, population)
        for x, population in _FRONT_PANELS
        if any(row[x] and row["pearson_lift"].get(population) for row in everything)
    ]
    if not panels:
        return None
    down = (len(panels) + 1) // 2
    figure = Figure(figsize=(10.0, 0.9 + 3.6 * down), layout="constrained")
    grid = figure.subplots(down, min(2, len(panels)), squeeze=False)
    labels = []
    for axis, (x, population) in zip(grid.flat, panels, strict=False):
        own: list[Label] = []
        for line in lines:
            known = [(text, row) for text, row in line.points if row[x] and row["pearson_lift"].get(population)]
            places = [row[x]["mean"] for _, row in known]
            lifts = [row["pearson_lift"][population] for _, row in known]
            _curve(axis, places, lifts, line.colour, line.label, 20, line.style)
            own += [
                Label(text, (at, lift["mean"]), line.colour)
                for at, lift, (text, _) in zip(places, lifts, known, strict=True)
            ]
        labels.append((axis, own))
        if x != "preservation":
            axis.axvline(0, color=GREY, linewidth=0.9, zorder=0)
        dress(axis, x=_FRONT_AXES[x], y=f"lift, {summary['populations'][population]}")
        axis.locator_params(nbins=6)
        axis.margins(x=0.09)
        if x == "preservation":
            _near_one(axis, [row[x]["mean"] for row in everything])
    for axis in grid.flat[len(panels) :]:
        axis.set_axis_off()
    handles, named = grid.flat[0].get_legend_handles_labels()
    fronts = summary["fronts"]
    swept = {"λ_keep": fronts["methods"], "epochs (ep.)": EPOCHS in fronts["sweeps"], "α": ALPHA in fronts["sweeps"]}
    said = ", ".join(name for name, is_there in swept.items() if is_there)
    figure.legend(
        handles, named, frameon=False, fontsize=10, loc="outside lower center",
        ncols=len(named) if len(named) < 7 else 4, title_fontsize=9,
        title=f"points: {said}, mean over seeds;  vertical lines: {summary['level']}% interval of it over synsets",
    ).get_title().set_color(GREY)  # fmt: skip
    figure.suptitle(_front_title(summary, panels[0][1]), x=0.01, ha="left", fontsize=12)
    place_labels(figure, labels)
    return figure


def _lines(summary: Summary) -> list[_Line]:
    """The fronts, then the sweeps of the treatment."""
    controls, fronts = summary["controls"], summary["fronts"]
    lines = [
        _Line(method, [(f"{controls[name]['keep']:g}", controls[name]) for name in names], colour)
        for (method, names), colour in zip(fronts["methods"].items(), cycle(_METHODS), strict=False)
    ]
    labels = {EPOCHS: f"{summary['treatment']} over epochs", ALPHA: f"{summary['treatment']} over fixed α"}
    for sweep, values in fronts["sweeps"].items():
        points = [(_SWEPT[sweep].format(value), controls[name]) for name, value in values.items()]
        lines.append(_Line(labels[sweep], points, *_SWEEPS[sweep]))
    return lines


def _near_one(axis: Axes, places: Sequence[float]) -> None:
    """Scale preservation by log(1 − p) where its values lie far apart: on an even scale those near 1 would coincide."""
    far, near = 1 - min(places), 1 - max(places)
    if far > 4 * near > 0:
        axis.set_xscale("function", functions=(lambda p: -np.log(np.maximum(1 - p, 1e-9)), lambda t: 1 - np.exp(-t)))
        ticks = [
            p for p in (0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999) if near <= 1 - p <= far
        ]
        axis.set_xticks(ticks, [f"{p:g}" for p in ticks])
        axis.set_xlabel(f"{axis.get_xlabel()}, log(1 − p)")


def _front_title(summary: Summary, population: str) -> str:
    """Lifts at one preservation: of the treatment's points the one that most fronts reach, its own λ_keep first.

    Without a front, the ends of the sweeps.
    """
    controls, where = summary["controls"], summary["populations"][population]
    where = f"{where[0].upper()}{where[1:]}"
    methods = {m: [controls[name] for name in names] for m, names in summary["fronts"]["methods"].items()}
    fronts = {m: [row for row in rows if row["pearson_lift"].get(population)] for m, rows in methods.items()}
    if not any(fronts.values()):
        return f"{where}, {summary['treatment']}: {_ends(summary, population)}"

    def at(place: float) -> dict[str, float]:
        """Lifts there, interpolated, of the methods whose fronts reach it."""
        found = {}
        for method, rows in fronts.items():
            places = [row["preservation"]["mean"] for row in rows]
            lifts = [row["pearson_lift"][population]["mean"] for row in rows]
            if rows and places[0] <= place <= places[-1]:
                found[method] = float(np.interp(place, places, lifts))
        return found

    own = fronts.get(summary["treatment"]) or next(rows for rows in fronts.values() if rows)
    chosen = max(own, key=lambda row: (len(at(row["preservation"]["mean"])), not row.get("front")))
    place = chosen["preservation"]["mean"]
    said = ", ".join(f"{method} {number(lift, 3, True)}" for method, lift in at(place).items())
    return f"{where} at preservation {number(place, 3)}: {said}"


def _ends(summary: Summary, population: str) -> str:
    """Lifts at the least and the largest value of each sweep."""
    said = []
    for sweep, values in summary["fronts"]["sweeps"].items():
        lifts = {n: lift["mean"] for n in values if (lift := summary["controls"][n]["pearson_lift"].get(population))}
        ends = list(lifts)[:: max(1, len(lifts) - 1)]
        said.append(" to ".join(f"{number(lifts[n], 3, True)} at {_SWEPT[sweep].format(values[n])}" for n in ends))
    return "; ".join(filter(None, said))


def sweep(summary: Summary) -> Figure | None:
    """Lift and validation loss against α, of the runs in which it was fixed; None for fewer than two such α.

    The treatment, whose α was learned, stands at the α where it ended, as a star.
    """
    fixed = {n: c for n, c in summary["controls"].items() if has_fixed_alpha(n) and c["alpha"] is not None}
    if len(fixed) < 2:
        return None
    ordered = sorted(fixed.values(), key=lambda control: control["alpha"]["mean"])
    alphas = [control["alpha"]["mean"] for control in ordered]
    treated = summary["controls"].get(summary["treatment"])
    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = summary["populations"]
    for population in PANELS:
        _curve(left, alphas, [c["pearson_lift"][population] for c in ordered], _COLOURS[population], names[population])
        _star(left, treated, (treated or {"pearson_lift": {}})["pearson_lift"].get(population), _COLOURS[population])
    left.axhline(0, color=GREY, linewidth=0.9, zorder=0)
    _curve(right, alphas, [c["validation_loss"] for c in ordered], INK, "validation loss")
    _star(right, treated, (treated or {}).get("validation_loss"), INK)
    for axis, y in ((left, "lift of Pearson"), (right, "validation loss (nats per token)")):
        dress(axis, x="injection strength α", y=y)
        axis.ticklabel_format(axis="y", useOffset=False)
        if alphas[-1] > 8 * alphas[0] > 0:
            axis.set_xscale("log")
            axis.set_xticks(alphas, [f"{alpha:.3g}" for alpha in alphas])
            axis.minorticks_off()
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=4)
    title = _sweep_title(summary["treatment"], ordered, alphas, in_short(names))
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def _curve(
    axis: Axes,
    places: Sequence[float],
    spreads: Sequence[Any],
    colour: str,
    label: str,
    pieces: int = 1,
    style: Mapping[str, Any] | None = None,
) -> None:
    """Means along x, joined, each with its interval, or with its least and largest seed where there is none.

    Args:
        pieces: of each segment; with several it is straight in the values, whatever the scale of the axis.
        style: of the line, further, as matplotlib names it.
    """
    points = [(place, spread) for place, spread in zip(places, spreads, strict=True) if spread is not None]
    if not points:
        return
    line = {"marker": "o", "markersize": 5, "linewidth": 1.5, "zorder": 2, **(style or {})}
    steps = np.arange(len(points))
    fine = np.linspace(0, steps[-1], pieces * steps[-1] + 1)
    axis.plot(
        np.interp(fine, steps, [place for place, _ in points]),
        np.interp(fine, steps, [spread["mean"] for _, spread in points]),
        color=colour,
        markevery=pieces,
        label=label,
        **line,
    )
    for place, spread in points:
        ends = spread.get("interval") or (spread["min"], spread["max"])
        axis.plot([place, place], ends, color=colour, linewidth=1.0, zorder=line["zorder"])


def _star(axis: Axes, treated: Mapping[str, Any] | None, spread: Mapping[str, Any] | None, colour: str) -> None:
    if treated is not None and treated["alpha"] is not None and spread is not None:
        axis.plot(
            [treated["alpha"]["mean"]], [spread["mean"]], linestyle="", marker="*", markersize=13, color=colour,
            markeredgecolor="white",
        )  # fmt: skip


def _sweep_title(name: str, ordered: Sequence[Mapping[str, Any]], alphas: Sequence[float], held_out: str) -> str:
    lifts = [(c["pearson_lift"]["held_out"] or c["pearson_lift"]["all"] or {}).get("mean") for c in ordered]
    known = [(lift, alpha) for lift, alpha in zip(lifts, alphas, strict=True) if lift is not None]
    if not known:
        return f"{name} at fixed α"
    lift, alpha = max(known)
    return f"{name} at fixed α: the largest {held_out} lift, {number(lift, 4, True)}, is at {alpha:.3g} (★: α learned)"


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and SVG beside each other, each complete or not at all."""
    for suffix in (".png", ".svg"):
        plotting.save(figure, path.with_suffix(suffix))
