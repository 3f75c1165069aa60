"""The hand that the probes' figures are drawn in: colours that hold for colour-blind readers, plain axes, whole files.

Nothing here touches pyplot or any other global state.
"""

import os
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's
BLUE, ORANGE, GREEN, VERMILION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
GREY, INK = "#7f7f7f", "#333333"


def dress(axis: Axes, title: str = "", x: str = "", y: str = "", grid: str = "y") -> None:
    """Axes without a box, a light grid behind, a title on the left."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis=grid, color="#e6e6e6", linewidth=0.8)  # type: ignore[arg-type]
    axis.set_axisbelow(True)
    axis.set(xlabel=x, ylabel=y)
    if title:
        axis.set_title(title, loc="left", fontsize=11)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format="png", dpi=150)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
