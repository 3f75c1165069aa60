"""Charts as matplotlib figures: every view a panel, the title above."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from modulant.reports.drawing.chart import (
    DEPTH,
    STEPS,
    Band,
    Bars,
    Chart,
    Heat,
    Interval,
    Level,
    Line,
    Mark,
    colour,
    spread_out,
)
from modulant.reports.drawing.plotting import INK, depth_colours, dress

_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
_LEGEND_AT_MOST = 8  # more layers than that are told apart by a colour bar


def draw(charts: Sequence[Chart], across: int = 1) -> Figure:
    """One figure of several charts.

    Args:
        across: charts beside each other. Of more than one each shows its first view, and all share a legend.
    """
    # Of a heat map over steps the first view: the page has the others.
    charts = [_first_view(chart) if chart.kind is Heat and chart.x is STEPS else chart for chart in charts]
    overview = across > 1
    down = math.ceil(len(charts) / across)
    sizes = [_size(chart, 1 if overview else len(chart.views)) for chart in charts]
    heights = [max(height for _, height in sizes[row * across : (row + 1) * across]) for row in range(down)]
    width = max(width for width, _ in sizes) * min(across, len(charts))
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    parts: list[Any] = [figure]
    if len(charts) > 1:
        parts = list(figure.subfigures(down, across, squeeze=False, height_ratios=heights).flat)
    for part, chart in zip(parts, charts, strict=False):
        panels = _panels(part, chart, dict(list(chart.views.items())[:1]) if overview else chart.views)
        if not overview:
            _legend(part, panels, chart)
    if overview:
        _legend(figure, figure.axes)
    return figure


def _first_view(chart: Chart) -> Chart:
    return replace(chart, views=dict(list(chart.views.items())[:1]))


def _size(chart: Chart, views: int) -> tuple[float, float]:
    """Inches."""
    across = _across(views)
    if chart.kind is Heat:
        width = max(5.0, 2.6 + 0.95 * len(chart.x.names)) if chart.x.names else 7.0
        height = min(12.0, 1.8 + 0.34 * len(chart.y.names))
        return width * (0.3 + 0.7 * across), height * math.ceil(views / across)
    if chart.kind is Interval:
        return 2.0 + 3.5 * across, 1.75 + 0.42 * len(chart.y.names)
    return (7.0, 4.2) if across == 1 else (1.5 + 4.1 * across, 1.1 + 3.1 * math.ceil(views / across))


def _across(views: int) -> int:
    return views if views <= 3 else 2


def _panels(part: Any, chart: Chart, views: Any) -> list[Axes]:
    across = _across(len(views))
    alike = len({type(marks[-1]) for marks in views.values()}) == 1
    grid = part.subplots(math.ceil(len(views) / across), across, sharex=True, sharey=alike, squeeze=False)
    panels: list[Axes] = list(grid.flat)
    for axis, (label, marks) in zip(panels, views.items(), strict=False):
        for mark in marks:
            _draw(axis, mark, chart)
        dress(axis, label, chart.x.title, chart.y.title, "x" if chart.kind is Interval else "y")
        if chart.x.whole:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        if chart.kind is Interval:
            axis.locator_params(axis="x", nbins=5)
        if chart.kind is Heat:
            axis.grid(False)
            axis.spines[:].set_visible(False)
        if chart.x.names:
            axis.set_xticks(range(len(chart.x.names)), list(chart.x.names))
        if chart.y.names:
            axis.set_yticks(range(len(chart.y.names)), list(chart.y.names))
            axis.set_ylim(len(chart.y.names) - 0.5, -0.5)
        steps = {x for mark in marks if isinstance(mark, Line) for x, _ in mark.points}
        if chart.x is STEPS and len(steps) == 1:  # when everything was measured at one step, that is the only tick
            axis.set_xticks(sorted(steps))
    if not chart.y.names and max(chart.values) - min(chart.values) < chart.y.least:
        panels[0].set_ylim(spread_out(chart.values, chart.y.least))
    for axis in panels[len(views) :]:
        axis.set_axis_off()
    for axis in panels if alike else []:
        axis.label_outer()
    part.suptitle(chart.title, x=0.01, ha="left", fontsize=12)
    return panels[: len(views)]


def _draw(axis: Axes, mark: Mark, chart: Chart) -> None:
    match mark:
        case Line():
            x, y = zip(*mark.points, strict=True)
            shade = colour(mark.colour)
            axis.plot(
                x, y, color=shade, alpha=mark.opacity, label=mark.name or "_",
                linewidth=0.85 * mark.width, linestyle=_DASHES[mark.dash],
                marker="o" if mark.size else "", markersize=0.75 * mark.size,
                markerfacecolor="white" if mark.hollow else shade, drawstyle="steps-mid" if mark.steps else "default",
            )  # fmt: skip
            if mark.fill:
                axis.fill_between(x, y, step="mid" if mark.steps else None, color=shade, alpha=0.3, linewidth=0)
            if mark.interval:
                axis.vlines(x[-1], *mark.interval, color=shade, linewidth=1.5)
        case Level():
            shade = colour(mark.colour)
            axis.axhline(mark.value, color=shade, linestyle=_DASHES[mark.dash], linewidth=1.3, label=mark.name)
            if mark.spread:
                low, high = mark.values()
                axis.axhspan(low, high, color=shade, alpha=0.15, linewidth=0)
        case Bars():
            shades = [colour(one) for one in mark.colours]
            bars = axis.bar(range(len(mark.heights)), mark.heights, color=shades, width=0.72)
            if len(mark.heights) <= 16:
                axis.bar_label(bars, mark.texts, fontsize=8, padding=3)
            axis.margins(y=0.15)
        case Heat():
            low, high = spread_out(mark.values(), chart.y.least)
            cells = np.asarray(mark.cells)
            if mark.columns:
                rows = np.arange(len(cells) + 1) - 0.5
                image: Any = axis.pcolormesh(_edges(mark.columns), rows, cells, cmap="viridis", vmin=low, vmax=high)
            else:
                image = axis.imshow(cells, aspect="auto", cmap="viridis", vmin=low, vmax=high)
            for (row, column), value in np.ndenumerate(cells) if mark.numbers else ():
                shade = "black" if (value - low) / (high - low) > 0.6 else "white"
                axis.text(column, row, f"{value:.4f}", ha="center", va="center", fontsize=8, color=shade)
            axis.tick_params(length=0)
            axis.figure.colorbar(image, ax=axis, label=mark.title).outline.set_visible(False)
        case Band():
            shade, label = colour(mark.colour), mark.name or "_"
            places, lower, upper = (list(values) for values in zip(*mark.points, strict=True))
            axis.fill_between(places, lower, upper, color=shade, alpha=0.15, linewidth=0, label=label)
        case Interval():
            place = list(chart.y.names).index(mark.name)
            axis.axvline(0, color=INK, linewidth=1.0, zorder=0)
            axis.plot(mark.ends, [place, place], color=colour(mark.colour), linewidth=2.2, solid_capstyle="butt")
            axis.plot([mark.value], [place], color=colour(mark.colour), marker="o", markersize=6.5)
            below = [place + 0.26] * len(mark.dots)
            axis.plot(mark.dots, below, "o", color=colour(mark.colour), markersize=3.2, alpha=0.55, markeredgewidth=0)
            if mark.guide:
                axis.axvline(mark.value, color=colour(mark.colour), linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)


def _edges(columns: Sequence[float]) -> list[float]:
    """Ends of the columns around their middles.

    >>> _edges([0, 4, 8])
    [-2.0, 2.0, 6.0, 10.0]
    """
    if len(columns) == 1:
        return [columns[0] - 0.5, columns[0] + 0.5]
    between = [(a + b) / 2 for a, b in pairwise(columns)]
    return [2 * columns[0] - between[0], *between, 2 * columns[-1] - between[-1]]


def _legend(part: Any, panels: Sequence[Axes], chart: Chart | None = None) -> None:
    """Names below the panels; of many layers a colour bar beside them."""
    first = next(iter(chart.views.values())) if chart else ()
    layers = [mark.name for mark in first if isinstance(mark, Line) and DEPTH.fullmatch(mark.colour)]
    if len(layers) > _LEGEND_AT_MOST:
        _depth_bar(part, panels, [layer.removeprefix("layer ") for layer in layers])
        return
    shown: dict[str, Any] = {}
    for axis in panels:
        handles, labels = axis.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    if shown:
        place = {"loc": "outside lower center", "ncols": 4 if len(shown) > 3 else 3}
        part.legend(list(shown.values()), list(shown), frameon=False, fontsize=9, **place)


def _depth_bar(part: Any, axes: Sequence[Axes], layers: Sequence[str]) -> None:
    colours = ListedColormap(depth_colours(len(layers)))
    edges = np.arange(len(layers) + 1) - 0.5
    every = max(1, math.ceil(len(layers) / 12))
    ticks = list(range(0, len(layers), every))
    mappable = ScalarMappable(BoundaryNorm(edges.tolist(), len(layers)), colours)
    bar = part.colorbar(mappable, ax=list(axes), ticks=ticks, label="layer", aspect=30)
    bar.ax.set_yticklabels([layers[tick] for tick in ticks])
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)
