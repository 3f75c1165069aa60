"""What all figures have in common: colours, axes, and how a file is written.

Nothing here touches pyplot or any other global state. Depth is shown by a sequential palette (plasma) and kinds by
Okabe and Ito's colours: both hold for colour-blind readers.
"""

from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from modulant.storage import storing, write_whole

BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
GREY, INK = "#7f7f7f", "#333333"


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG or SVG, by the file's name, complete or not at all."""
    with storing(path):
        path.parent.mkdir(exist_ok=True)
    kind = path.suffix[1:]
    with matplotlib.rc_context({"svg.hashsalt": "modulant", "svg.fonttype": "none"}):  # the same file each time
        metadata = {"Date": None} if kind == "svg" else None
        write_whole(path, lambda file: figure.savefig(file, format=kind, dpi=150, metadata=metadata))
    return path


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


def depth_colours(n: int, low: float = 0.0, high: float = 0.64) -> list[tuple[float, float, float, float]]:
    """Plasma between two places; above 0.64 its contrast with white is below 3, below 0.4 that with black."""
    return [tuple(colour) for colour in matplotlib.colormaps["plasma"](np.linspace(low, high, max(n, 1)))[:n]]
