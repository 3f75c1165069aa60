"""The figures of a folder of controls: a forest plot of their lifts, and lift and loss against α where α was swept.

A title says what is seen, in numbers. Nothing here touches pyplot or any other global state.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modulant.reports import plotting
from modulant.reports.chart import Axis, Chart, Interval
from modulant.reports.figures import draw
from modulant.reports.plotting import BLUE, GREY, INK, ORANGE, VERMILION, dress
from modulant.reports.rows import in_short
from modulant.reports.wording import number

PANELS = ("train", "mixed", "held_out")
_COLOURS = {"train": BLUE, "mixed": ORANGE, "held_out": VERMILION}

Summary = Mapping[str, Any]


def forest(summary: Summary) -> Figure | None:
    """One row a control, one panel a population: mean with its interval, seeds as dots; None without any lift."""
    controls = {n: c["pearson_lift"] for n, c in summary["controls"].items() if c["pearson_lift"]["all"]}
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


def sweep(summary: Summary) -> Figure | None:
    """Lift and validation loss against α, of the runs in which it was fixed; None for fewer than two such α.

    The treatment, whose α was learned, stands at the α where it ended, as a star.
    """
    fixed = {n: c for n, c in summary["controls"].items() if n == "fixed_alpha" or n.startswith("alpha_")}
    fixed = {n: c for n, c in fixed.items() if c["alpha"] is not None}
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


def _curve(axis: Axes, alphas: Sequence[float], spreads: Sequence[Any], colour: str, label: str) -> None:
    points = [(alpha, spread) for alpha, spread in zip(alphas, spreads, strict=True) if spread is not None]
    if not points:
        return
    x = [alpha for alpha, _ in points]
    axis.plot(
        x,
        [spread["mean"] for _, spread in points],
        color=colour,
        marker="o",
        markersize=5,
        linewidth=1.5,
        label=label,
    )
    for alpha, spread in points:
        ends = spread.get("interval") or (spread["min"], spread["max"])
        axis.plot([alpha, alpha], ends, color=colour, linewidth=1.2)


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
