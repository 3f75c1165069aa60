"""The hand that all figures are drawn in: colours, axes, lines, and how a figure is saved.

Nothing here touches pyplot or any other global state. Depth is shown by a sequential palette (viridis) and kinds by
Okabe and Ito's colours: both hold for colour-blind readers.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from modulant.reports.wording import number
from modulant.storage import storing, write_whole

Series = Sequence[tuple[int, float]]  # (step, value), by step

BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
GREY, INK = "#7f7f7f", "#333333"


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, complete or not at all."""
    with storing(path):
        path.parent.mkdir(exist_ok=True)
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=150))
    return path


def smoothed(values: Sequence[float], span: float) -> list[float]:
    r"""Exponential average `s_t = Σ_i w^(t−i) x_i / Σ_i w^(t−i)` with `w = 1 − 1 / span`: no bias at the start.

    >>> smoothed([1.0, 3.0], span=2.0)
    [1.0, 2.3333333333333335]
    """
    decay = 1 - 1 / span
    total = weight = 0.0
    out = []
    for value in values:
        if math.isfinite(value):
            total, weight = decay * total + value, decay * weight + 1
        out.append(total / weight if weight else math.nan)
    return out


def columns(series: Series) -> tuple[list[int], list[float]]:
    return [step for step, _ in series], [value for _, value in series]


def line(axis: Axes, series: Series, color: object, label: str, linewidth: float = 1.6) -> None:
    steps, values = columns(series)
    # few points are shown as points: a line through one of them would be invisible
    marker = "o" if len(steps) <= 25 else ""
    axis.plot(steps, values, color=color, linewidth=linewidth, marker=marker, markersize=3.5, label=label)


def dress(axis: Axes, title: str = "", x: str = "training step", y: str = "", grid: Literal["x", "y"] = "y") -> None:
    """Axes without a box, a light grid behind, a title on the left."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, color="#e6e6e6", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.set(xlabel=x, ylabel=y)
    if title:
        axis.set_title(title, loc="left", fontsize=11)
    if isinstance(axis.yaxis.get_major_formatter(), ScalarFormatter) and axis.get_yscale() == "linear":
        axis.ticklabel_format(axis="y", useOffset=False)
    if x == "training step":
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))


def lone_step(axis: Axes, *series: Series) -> None:
    """When everything was measured at one step, that step is the only tick."""
    steps = {step for one in series for step, _ in one}
    if len(steps) == 1:
        axis.set_xticks(list(steps))


def room(axis: Axes, least: float) -> None:
    """Widen the y axis to at least this span: a constant is drawn as one, not as noise under a magnifier."""
    low, high = axis.get_ylim()
    if (missing := least - (high - low)) > 0:
        axis.set_ylim(low - missing / 2, high + missing / 2)


def depth_colours(n: int, low: float = 0.0, high: float = 0.88) -> list[tuple[float, float, float, float]]:
    """Viridis between two places; its last tenth is too light on white, its first third too dark on black."""
    return [tuple(colour) for colour in matplotlib.colormaps["viridis"](np.linspace(low, high, max(n, 1)))[:n]]


def depth_bar(figure: Figure, axes: list[Axes], layers: Sequence[int]) -> None:
    colours = ListedColormap(depth_colours(len(layers)))
    edges = np.arange(len(layers) + 1) - 0.5
    every = max(1, math.ceil(len(layers) / 12))
    ticks = list(range(0, len(layers), every))
    mappable = ScalarMappable(BoundaryNorm(edges.tolist(), len(layers)), colours)
    bar = figure.colorbar(mappable, ax=axes, ticks=ticks, label="encoder layer", aspect=30)
    bar.ax.set_yticklabels([str(layers[tick]) for tick in ticks])
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)


def change(what: str, before: float | None, after: float, digits: int) -> str:
    first = what[0].upper() + what[1:]
    if before is None or not math.isfinite(before):
        return f"{first}: {number(after, digits)}"
    return f"{first}: {number(before, digits)} → {number(after, digits)}"
