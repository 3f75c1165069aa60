"""A run's figures: pure functions from series to matplotlib figures. A title says what is seen, in numbers."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from modulant.reports.plotting import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    VERMILION,
    Series,
    change,
    columns,
    depth_bar,
    depth_colours,
    dress,
    line,
    lone_step,
    room,
    save,
    smoothed,
)
from modulant.reports.wording import number, short

__all__ = ["alpha_over_steps", "bands", "final_alpha", "loss", "pentachoron", "relational", "save"]

POPULATIONS = {
    "train": ("training × training", BLUE),
    "mixed": ("training × held-out", ORANGE),
    "held_out": ("held-out × held-out", VERMILION),
}
_LEGEND_AT_MOST = 8  # more layers than that are told apart by a colour bar


def alpha_over_steps(mean: Mapping[int, Series], experts: Mapping[str, Mapping[int, Series]]) -> Figure:
    """α of each layer over steps: one panel of means over experts and, when there are several experts, one for each.

    Args:
        mean: layer → series.
        experts: expert's name → layer → series; empty or of one expert, when the means say it all.
    """
    panels: dict[str, Mapping[int, Series]] = {"mean over experts" if len(experts) > 1 else "": mean}
    if len(experts) > 1:
        panels |= {f"expert {name}": layers for name, layers in experts.items()}
    across = len(panels) if len(panels) <= 3 else 2
    rows = math.ceil(len(panels) / across)
    figure = Figure(figsize=(7.0 if across == 1 else 3.5 + 3.6 * across, 0.7 + 3.1 * rows), layout="constrained")
    axes = list(figure.subplots(rows, across, sharex=True, sharey=True, squeeze=False).flat)
    layers = sorted(mean)
    colours = dict(zip(layers, depth_colours(len(layers)), strict=True))
    for axis, (name, series) in zip(axes, panels.items(), strict=False):
        for layer in sorted(series):
            line(axis, series[layer], color=colours.get(layer, GREY), label=f"layer {layer}")
        dress(axis, title=name, y="injection strength α")
    room(axes[0], 0.002)  # once all is drawn: the panels share their axes, and fixing one fixes all
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    lone_step(axes[0], *mean.values())
    for axis in axes:
        axis.label_outer()
    if len(layers) > _LEGEND_AT_MOST:
        depth_bar(figure, axes[: len(panels)], layers)
    else:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], frameon=False, fontsize=9, loc="outside right center")
    figure.suptitle(alpha_title(mean), x=0.01, ha="left", fontsize=12)
    return figure


def alpha_title(mean: Mapping[int, Series]) -> str:
    first = np.mean([series[0][1] for series in mean.values()])
    last = np.mean([series[-1][1] for series in mean.values()])
    what = f"Mean α of {len(mean)} layer{'s' * (len(mean) != 1)}"
    if all(len(series) == 1 for series in mean.values()):
        return f"{what}: {last:.4f}"
    verb = (
        "stayed at" if f"{first:.4f}" == f"{last:.4f}" else f"{'rose' if last > first else 'fell'} from {first:.4f} to"
    )
    return f"{what} {verb} {last:.4f}"


def loss(train: Series, validation: Series, unit: str = "nats per token") -> Figure:
    """Training loss, raw and smoothed (exponential average over a fiftieth of the run), and validation loss."""
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axis = figure.subplots()
    if train:
        steps, values = columns(train)
        span = max(1.0, len(train) / 50)
        if span > 1:
            axis.plot(steps, values, color=BLUE, alpha=0.22, linewidth=0.8, label="training, as logged")
            axis.plot(steps, smoothed(values, span), color=BLUE, linewidth=1.8, label="training, smoothed")
        else:
            line(axis, train, color=BLUE, label="training")
    if validation:
        steps, values = columns(validation)
        axis.plot(steps, values, color=VERMILION, marker="o", markersize=5, linewidth=1.5, label="validation")
    dress(axis, y=f"cross-entropy ({unit})")
    room(axis, 0.05)
    lone_step(axis, train, validation)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=3)
    shown, name = (validation, "validation") if validation else (train, "training")
    if shown:
        before = shown[0][1] if len(shown) > 1 else None
        axis.set_title(change(f"{name} loss", before, shown[-1][1], 3), loc="left", fontsize=12)
    return figure


def final_alpha(
    values: Sequence[Sequence[float]], layers: Sequence[int], experts: Sequence[str], initial: float | None = None
) -> Figure:
    """α at the end: numbers on colour for layer × expert, bars when there is one expert.

    Args:
        values: α of each layer (rows) and expert (columns).
        initial: where α started.
    """
    table = np.asarray(values, dtype=float)
    if len(experts) == 1:
        figure = Figure(figsize=(min(12.0, 3.2 + 0.45 * len(layers)), 4.0), layout="constrained")
        axis = figure.subplots()
        bars = axis.bar(range(len(layers)), table[:, 0], color=depth_colours(len(layers)), width=0.72)
        if len(layers) <= 16:
            axis.bar_label(bars, fmt="%.4f", fontsize=8, padding=3)
        axis.set_xticks(range(len(layers)), [str(layer) for layer in layers])
        dress(axis, x="encoder layer", y="injection strength α")
        axis.set_ylim(0, 1.12 * max(table.max(), initial or 0.0, 1e-3))
    else:
        figure = Figure(
            figsize=(max(5.0, 2.6 + 0.95 * len(experts)), min(12.0, 1.8 + 0.34 * len(layers))), layout="constrained"
        )
        axis = figure.subplots()
        low, high = float(table.min()), float(table.max())
        blank = max(0.0, 0.002 - (high - low)) / 2  # equal values get one colour, not the whole palette
        low, high = low - blank, high + blank
        image = axis.imshow(table, aspect="auto", cmap="viridis", origin="lower", vmin=low, vmax=high)
        for (row, column), value in np.ndenumerate(table):
            bright = (value - low) / (high - low) > 0.6
            axis.text(
                column, row, f"{value:.4f}", ha="center", va="center", fontsize=8, color="black" if bright else "white"
            )
        axis.set_xticks(range(len(experts)), list(experts))
        axis.set_yticks(range(len(layers)), [str(layer) for layer in layers])
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        axis.set(xlabel="expert", ylabel="encoder layer")
        figure.colorbar(image, ax=axis, label="injection strength α").outline.set_visible(False)
    title = f"Final α: {table.min():.4f} to {table.max():.4f}"
    if initial is not None:
        title += f" (started at {initial:.4g})"
        if len(experts) == 1:
            axis.axhline(initial, color=INK, linestyle="--", linewidth=1)
            axis.text(1.01, initial, "start", transform=axis.get_yaxis_transform(), va="center", fontsize=8, color=INK)
    axis.set_title(title, loc="left", fontsize=11)
    return figure


def relational(
    modulated: Mapping[str, Series],
    base: Mapping[str, float],
    references: Mapping[str, Mapping[str, float]],
    lifts: Mapping[str, Mapping[str, Series]],
) -> Figure:
    """Correlation with WordNet over steps (above), and the lift over the original encoder by population (below).

    Args:
        modulated: `pearson` and `spearman` → series over all pairs.
        base: the same of the original encoder.
        references: name of a reference (static embeddings, an encoder initialised at random) → the same.
        lifts: `pearson` and `spearman` → population (`train`, `mixed`, `held_out`) → series of modulated − original.
    """
    kinds = [kind for kind in ("pearson", "spearman") if modulated.get(kind)]
    with_lifts = any(lifts.get(kind) for kind in kinds)
    rows = 2 if with_lifts else 1
    figure = Figure(figsize=(4.6 * len(kinds) + 2.2, 3.5 * rows + 0.9), layout="constrained")
    grid = figure.subplots(rows, len(kinds), sharex=True, sharey="row", squeeze=False)
    styles = {name: style for name, style in zip(references, (":", "-."), strict=False)}
    for axis, kind in zip(grid[0], kinds, strict=True):
        line(axis, modulated[kind], color=BLUE, linewidth=2, label="modulated encoder")
        if kind in base:
            axis.axhline(base[kind], color=INK, linewidth=1.4, linestyle="--", label="original encoder")
        for name, values in references.items():
            if kind in values:
                axis.axhline(values[kind], color=GREY, linewidth=1, linestyle=styles.get(name, ":"), label=name)
        dress(axis, title=change(f"{kind} over all pairs", base.get(kind), modulated[kind][-1][1], 4))
    room(grid[0][0], 0.02)  # once all is drawn, as above
    grid[0][0].set_ylabel("correlation of cosine\nwith path similarity")
    if with_lifts:
        for axis, kind in zip(grid[1], kinds, strict=True):
            axis.axhline(0, color=INK, linewidth=1.4, linestyle="--")
            for population, series in lifts.get(kind, {}).items():
                label, colour = POPULATIONS.get(population, (population, GREEN))
                if series:
                    line(axis, series, color=colour, label=label)
            dress(axis, title=f"Lift of {kind.capitalize()} by population")
        room(grid[1][0], 0.002)
        grid[1][0].set_ylabel("modulated − original")
    lone_step(grid[0][0], *(modulated[kind] for kind in kinds))
    for axis in grid.flat:
        axis.label_outer()
    for row in grid:
        row[-1].legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def bands(before: Mapping[str, float], after: Mapping[str, float], counts: Mapping[str, int] | None = None) -> Figure:
    """Mean cosine in each band of WordNet path similarity, of the original and of the modulated encoder.

    Args:
        before: band → mean cosine, from the most similar to the least: drawn in this order.
        after: the same after training.
        counts: band → number of pairs.
    """
    names = [name for name in before if name in after]
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axis = figure.subplots()
    where = np.arange(len(names))
    low, high = np.array([before[n] for n in names], dtype=float), np.array([after[n] for n in names], dtype=float)
    axis.vlines(where, np.fmin(low, high), np.fmax(low, high), color=GREY, linewidth=1.2)
    axis.scatter(where, low, facecolors="white", edgecolors=INK, s=55, linewidths=1.5, label="original", zorder=3)
    axis.scatter(where, high, color=BLUE, s=55, label="modulated", zorder=3)
    for x, y, rise in zip(where, np.fmax(low, high), high - low, strict=True):
        if math.isfinite(rise):
            axis.annotate(
                number(rise, 3, signed=True), (x, y), (0, 9), textcoords="offset points", ha="center", fontsize=8
            )
    labels = [f"{name}\n{short(counts[name])} pairs" if counts and name in counts else name for name in names]
    axis.set_xticks(where, labels)
    axis.set_xlim(-0.5, max(len(names), 1) - 0.5)
    dress(axis, x="path similarity of the two synsets", y="mean cosine (unitless)")
    axis.margins(y=0.16)
    axis.legend(frameon=False, fontsize=9)
    seen = high[np.isfinite(high)]
    title = ""
    if seen.size:
        title = (
            f"Mean cosine, modulated: {number(seen[0], 3)} in the nearest band, {number(seen[-1], 3)} in the farthest"
        )
    axis.set_title(title or "No band has pairs", loc="left", fontsize=12)
    return figure


def pentachoron(
    cv: Series,
    reference: float | None,
    tolerance: float | None,
    null: tuple[float, float] | None = None,
    reference_name: str = "reference",
) -> Figure:
    """CV of pentachoron volumes over steps, with the reference ± tolerance it should keep and its Gaussian null.

    Args:
        null: mean and standard deviation of the CV of Gaussian points of the same number and scale.
    """
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axis = figure.subplots()
    title = f"Pentachoron CV: {cv[-1][1]:.4f}" if cv else "No CV was measured"
    if reference is not None:
        label = f"{reference_name} {reference:.3f}"
        if tolerance is not None:
            low, high = reference - tolerance, reference + tolerance
            axis.axhspan(low, high, color=GREEN, alpha=0.13, linewidth=0)
            label += f" ± {tolerance:g}"
            outside = [step for step, value in cv if not low <= value <= high]
            where = f"left its band at step {outside[0]}" if outside else "within its band throughout"
            title = f"{title}, {where}"
        axis.axhline(reference, color=GREEN, linestyle="--", linewidth=1.4, label=label)
    if null is not None:
        mean, deviation = null
        axis.axhspan(mean - 2 * deviation, mean + 2 * deviation, color=PURPLE, alpha=0.25, linewidth=0)
        axis.axhline(mean, color=PURPLE, linestyle=":", linewidth=1.4, label=f"Gaussian null {mean:.3f} ± 2 sd")
    if cv:
        line(axis, cv, color=BLUE, linewidth=2, label="modulated encoder")
    dress(axis, y="CV of volumes (sd / mean, unitless)")
    room(axis, 0.02)
    lone_step(axis, cv)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=3)
    axis.set_title(title, loc="left", fontsize=12)
    return figure
