"""What a chart shows: marks over two axes, in one or several views.

`figures` draws a chart with matplotlib, its views side by side; `interactive` with plotly, where the reader picks one.
A colour is a token, since a dark page needs other colours than a light one; ``@depth12_3`` is layer 3 of 12.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.colors import to_hex

from modulant.reports.drawing.plotting import BLUE, GREEN, INK, ORANGE, PURPLE, VERMILION, depth_colours
from modulant.reports.table import Table
from modulant.reports.wording import number, with_interval

FEW = 25  # points of a line that are marked as well: a line through a single point is invisible
COLOURS = ("@blue", "@vermilion", "@green", "@orange", "@purple", "@sky", "@grey", "@ink")  # of kinds and of runs
SKY = "#56B4E9"
_BOTH = {"@vermilion": VERMILION, "@purple": PURPLE, "@green": GREEN}
# On white, Okabe and Ito's orange and sky blue have a contrast below 3; these are darker.
_LIGHT = {"@orange": "#A67C00", "@sky": "#3A93C8"}
_DARK = {"@orange": ORANGE, "@sky": "#8CCBF0"}  # the dark page's blue is their sky blue
SKINS: Mapping[str, Mapping[str, str]] = {
    "light": _BOTH | _LIGHT | {"@blue": BLUE, "@ink": INK, "@grey": "#767676", "@rule": "#e4e4e4", "@paper": "#ffffff"},
    "dark": _BOTH
    | _DARK
    | {"@blue": SKY, "@ink": "#dddddd", "@grey": "#9a9a9a", "@rule": "#33363c", "@paper": "#15171a"},
}
DEPTH = re.compile(r"@depth(\d+)_(\d+)")


@dataclass(frozen=True)
class Line:
    """Points by x, joined.

    Attributes:
        points: (x, y); a y of NaN is a gap. On an axis with names, x is a place in them.
        name: its entry in the legend; empty for none.
        width: width of the line; 0 for points alone.
        marker: size of the points; 0 for none, None to mark them where they are few.
        hollow: draw points as rings.
        steps: draw the outline of a histogram, each point in the middle of its bin.
        fill: fill the area below.
        interval: interval around the last point.
    """

    points: Sequence[tuple[float, float]]
    name: str
    colour: str
    width: float = 2.0
    dash: str = "solid"
    opacity: float = 1.0
    marker: float | None = None
    hollow: bool = False
    steps: bool = False
    fill: bool = False
    interval: tuple[float, float] | None = None

    @property
    def size(self) -> float:
        """Size of its markers; 0 for none."""
        return self.marker if self.marker is not None else 5 if len(self.points) <= FEW else 0

    def values(self) -> list[float]:
        return [y for _, y in self.points if math.isfinite(y)] + list(self.interval or ())


@dataclass(frozen=True)
class Level:
    """A value that does not change: a horizontal line, and a band of ± `spread` around it."""

    value: float
    name: str
    colour: str
    dash: str = "dash"
    spread: float = 0.0

    def values(self) -> list[float]:
        return [self.value - self.spread, self.value + self.spread]


@dataclass(frozen=True)
class Bars:
    """A bar for each name of the x axis, with its value as text."""

    heights: Sequence[float]
    colours: Sequence[str]
    digits: int = 4
    signed: bool = False

    @property
    def texts(self) -> list[str]:
        return [number(height, self.digits, self.signed) for height in self.heights]

    def values(self) -> list[float]:
        return [0.0, *self.heights]


@dataclass(frozen=True)
class Heat:
    """A colour for each name of the y axis (rows) and each column of the x axis.

    Attributes:
        cells: rows of values.
        title: of the colour bar: the quantity.
        columns: numbers along x, ascending, where the x axis has no names.
        numbers: write each value into its cell.
    """

    cells: Sequence[Sequence[float]]
    title: str
    columns: Sequence[float] = ()
    numbers: bool = True

    def values(self) -> list[float]:
        return [value for row in self.cells for value in row]


@dataclass(frozen=True)
class Interval:
    """A value along x with its interval, in the row of the y axis that has its name.

    Attributes:
        dots: the values that it is the mean of, drawn below it.
        guide: draw a dashed line from the value through all rows.
    """

    value: float
    ends: tuple[float, float]
    name: str
    colour: str
    dots: Sequence[float] = ()
    guide: bool = False

    def values(self) -> list[float]:
        return [self.value, *self.ends]


@dataclass(frozen=True)
class Band:
    """What lies between two values at each x, filled.

    Attributes:
        points: (x, low, high).
        name: its entry in the legend; empty for none.
    """

    points: Sequence[tuple[float, float, float]]
    name: str
    colour: str

    def values(self) -> list[float]:
        return [y for _, *ends in self.points for y in ends if math.isfinite(y)]


Mark = Line | Level | Bars | Heat | Interval | Band


@dataclass(frozen=True)
class Axis:
    """An axis of numbers, or of names.

    Attributes:
        title: quantity and unit.
        names: the names of its places; on y, from the top.
        least: smallest span that is shown, so that a constant is not drawn as magnified noise.
        whole: only integers have a tick.
    """

    title: str = ""
    names: Sequence[str] = ()
    least: float = 0.0
    whole: bool = False


STEPS = Axis("training step", whole=True)
LAYERS = Axis("layer", whole=True)


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        name: name of its element, unique on its page.
        title: the finding, in numbers.
        views: label → marks.
        y, x: the axes of all views.
        note: a sentence below it on a page.
        reading: how to read it, in one line for who has never seen such a chart.
    """

    name: str
    title: str
    views: Mapping[str, Sequence[Mark]]
    y: Axis
    x: Axis = STEPS
    note: str = ""
    reading: str = ""

    @property
    def values(self) -> list[float]:
        return [value for marks in self.views.values() for mark in marks for value in mark.values()]

    @property
    def kind(self) -> type[Mark]:
        """The mark that it is laid out for."""
        return type(next(iter(self.views.values()))[-1])

    @property
    def alt(self) -> str:
        """A description for readers who do not see the picture."""
        if self.kind is Interval:
            return f"{self.x.title} with its interval, one row for each of {', '.join(self.y.names)}. {self.title}."
        what = f"Heatmap by {self.y.title}" if self.kind is Heat else f"Chart of {self.y.title}"
        return f"{what} and {self.x.title}, in {len(self.views)} view{'s' * (len(self.views) > 1)}. {self.title}."

    @property
    def table(self) -> Table:
        """Its numbers: the ends of lines over steps; of other charts, everything in the first view."""
        if self.x is STEPS:
            lines = [
                (f"{mark.name}, {view}".removesuffix(", "), (mark.points[0], mark.points[-1]))
                for view, marks in self.views.items()
                for mark in marks
                if isinstance(mark, Line)
            ]
            lines += [
                (f"{name}, {view}".removesuffix(", "), ((mark.columns[0], cells[0]), (mark.columns[-1], cells[-1])))
                for view, marks in self.views.items()
                for mark in marks
                if isinstance(mark, Heat)
                for name, cells in zip(self.y.names, mark.cells, strict=True)
            ]
            rows = [[name, *(cell for x, y in ends for cell in (str(x), number(y)))] for name, ends in lines]
            return Table(["", "first step", "value", "last step", "value"], rows)
        marks = next(iter(self.views.values()))
        rows = []
        header = [self.x.title, *(mark.name for mark in marks if isinstance(mark, Line) and mark.name)]
        for mark in marks:
            if isinstance(mark, Interval):
                header = [self.y.title, self.x.title]
                rows.append([mark.name, with_interval(mark.value, mark.ends if len(set(mark.ends)) > 1 else None)])
            elif isinstance(mark, Heat):
                header = [self.y.title, *(self.x.names or [f"{column:g}" for column in mark.columns])]
                rows = [[name, *map(number, row)] for name, row in zip(self.y.names, mark.cells, strict=True)]
            elif isinstance(mark, Bars):
                header.append(self.y.title)
                rows = [[name, text] for name, text in zip(self.x.names, mark.texts, strict=True)]
        series = [dict(mark.points) for mark in marks if isinstance(mark, Line) and mark.name]
        if series and not rows:  # which may have points at different places
            digits = 0 if self.x.whole else 3
            for x in sorted({x for one in series for x in one}):
                place = self.x.names[int(x)] if self.x.names else number(x, digits)
                rows.append([place, *(number(one.get(x)) for one in series)])
        return Table(header, rows)


def spread_out(values: Sequence[float], least: float) -> tuple[float, float]:
    """Ends of the values, at least so far apart.

    >>> spread_out([1.0, 1.0], 0.5)
    (0.75, 1.25)
    """
    missing = max(0.0, least - (max(values) - min(values))) / 2
    return min(values) - missing, max(values) + missing


def colour(token: str, skin: str = "light") -> str:
    """The colour that a token stands for."""
    if match := DEPTH.fullmatch(token):
        dark = (0.4, 1.0) if skin == "dark" else ()
        return to_hex(depth_colours(int(match[1]), *dark)[int(match[2])])
    return SKINS[skin][token]
