"""Places labels beside crowded points: they cover no other label and, where there is room, no point or line."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from numpy.typing import NDArray

_RADII = (6.0, 11.0, 17.0, 24.0, 32.0, 42.0)  # from a point to its label's box, in points
_ANGLES = np.arange(0.3, 2 * np.pi, np.pi / 8)
_MARKER = 4.0  # half its width, in points
_STEP = 4.0  # between the places at which a line is looked at, in pixels
_PASSES = 3
# What it costs to cover a label or to leave the axes, a marker, and a place of a line; and a pixel of distance.
_ON_LABEL, _ON_MARKER, _ON_LINE, _AWAY = 20.0, 6.0, 0.6, 0.05

Boxes = NDArray[np.float64]  # (boxes, 4): left, bottom, right, top, in pixels
Places = NDArray[np.float64]  # (places, 2), in pixels


@dataclass(frozen=True)
class Label:
    """What stands at a point.

    Attributes:
        at: the point, in data.
    """

    text: str
    at: tuple[float, float]
    colour: str


def place_labels(figure: Figure, labels: Sequence[tuple[Axes, Sequence[Label]]]) -> None:
    """Write labels beside their points, each with a thin line to its own.

    Each goes in turn where it covers least, and again when all others have a place. It is called when all else is in
    the figure, whose layout it computes.
    """
    written = [(axis, [_write(axis, label) for label in own]) for axis, own in labels]
    figure.draw_without_rendering()
    for axis, notes in written:
        if notes:
            _spread(axis, notes, figure.dpi / 72)


def _write(axis: Axes, label: Label) -> Annotation:
    note = axis.annotate(
        label.text, label.at, (0, 0), textcoords="offset points", fontsize=9, color=label.colour, ha="center",
        va="center", path_effects=[withStroke(linewidth=2.5, foreground="white")],
        arrowprops={"arrowstyle": "-", "color": label.colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3},
    )  # fmt: skip
    note.set_in_layout(False)
    return note


def _spread(axis: Axes, notes: Sequence[Annotation], scale: float) -> None:
    """Give each label of an axis its place.

    Args:
        scale: pixels a point.
    """
    points = axis.transData.transform([note.xy for note in notes])
    extents = [Text.get_window_extent(note) for note in notes]  # without its line
    sizes = np.array([[box.width / 2, box.height / 2] for box in extents])
    ways = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
    away = np.repeat(np.array(_RADII) * scale, len(ways))[:, None]
    ways = np.tile(ways, (len(_RADII), 1))
    lines = np.concatenate([_along(line.get_transform().transform(line.get_xydata())) for line in axis.lines])
    markers = np.hstack([points - _MARKER * scale, points + _MARKER * scale])
    chosen: dict[int, tuple[Boxes, Places]] = {}
    for i in [*range(len(notes))] * _PASSES:
        offsets = ways * (away + sizes[i])
        boxes = np.hstack([points[i] + offsets - sizes[i], points[i] + offsets + sizes[i]])
        others = [chosen[j] for j in chosen if j != i]
        labels = np.array([box for box, _ in others]).reshape(-1, 4)
        covered = np.concatenate([lines, *(leader for _, leader in others)])
        outside = _overlap(boxes, np.array([axis.bbox.extents])).sum(1) < 1 - 1e-6
        cost = (
            _ON_LABEL * (_overlap(boxes, labels).sum(1) + outside)
            + _ON_MARKER * _overlap(boxes, markers).sum(1)
            + _ON_LINE * _within(covered, boxes).sum(1)
            + _AWAY * away[:, 0]
        )
        best = int(np.argmin(cost))
        chosen[i] = boxes[best], _along(np.array([points[i], points[i] + ways[best] * away[best]]))
        notes[i].xyann = tuple(offsets[best] / scale)


def _overlap(boxes: Boxes, others: Boxes) -> NDArray[np.float64]:
    """(boxes, others): the share of each box that lies in each of the others."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return np.asarray(np.prod(np.clip(high - low, 0, None), axis=2) / area[:, None])


def _within(places: Places, boxes: Boxes) -> NDArray[np.bool_]:
    """(boxes, places): which lie in which."""
    inside = (places[None] >= boxes[:, None, :2]) & (places[None] <= boxes[:, None, 2:])
    return np.asarray(inside.all(2))


def _along(corners: Places) -> Places:
    """Places along a line, at most `_STEP` apart."""
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    at = np.linspace(0, lengths[-1], int(lengths[-1] / _STEP) + 2)
    return np.stack([np.interp(at, lengths, corners[:, k]) for k in range(2)], axis=1)
