"""A report's interactive charts: plotly's dictionaries from series and figures, drawn by page.js.

A colour that has to differ between a light and a dark page is a token such as ``@ink``, which the page replaces; depth
is told by tokens ``@depth<layers>_<layer>``. `SKINS` says what they stand for.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modulant.reports.plotting import BLUE, ORANGE, PURPLE, VERMILION, depth_colours
from modulant.reports.report_rows import Rows
from modulant.reports.series import Series
from modulant.reports.wording import number

Trace = dict[str, Any]

MOST_POINTS = 1500  # of a line; a page of a long run must stay small
COLOURS = ("@blue", "@vermilion", "@green", "@orange", "@purple", "@sky", "@grey", "@ink")  # of kinds and of runs
SKINS: Mapping[str, Mapping[str, str]] = {
    "light": {"@blue": BLUE, "@ink": "#333333", "@grey": "#767676", "@rule": "#e4e4e4", "@paper": "#ffffff"},
    "dark": {"@blue": "#56B4E9", "@ink": "#dddddd", "@grey": "#9a9a9a", "@rule": "#33363c", "@paper": "#15171a"},
}
_BOTH = {"@orange": ORANGE, "@vermilion": VERMILION, "@purple": PURPLE, "@green": "#009E73", "@sky": "#56B4E9"}
_DEPTH = re.compile(r"@depth(\d+)_(\d+)")


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        name: of its element; unique on its page.
        title: what is seen, in numbers.
        alt: what a reader is told who sees no picture.
        views: label → traces; of several, the reader picks one.
        layout: plotly's, the same for every view.
        table: header and rows of the numbers behind it.
        note: a sentence under it.
    """

    name: str
    title: str
    alt: str
    views: Mapping[str, Sequence[Trace]]
    layout: Mapping[str, Any]
    table: tuple[list[str], Rows] | None = None
    note: str = ""
    tokens: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        used = re.findall(r"@[a-z]+(?:\d+_\d+)?", repr((self.views, self.layout)))
        object.__setattr__(self, "tokens", frozenset(used))


def skins(charts: Sequence[Chart]) -> dict[str, dict[str, str]]:
    """``light`` and ``dark``: token → colour, of all tokens that these charts use."""
    depths = {token for chart in charts for token in chart.tokens if _DEPTH.fullmatch(token)}
    return {name: {**_BOTH, **skin, **_depths(depths, name == "dark")} for name, skin in SKINS.items()}


def _depths(tokens: set[str], dark: bool) -> dict[str, str]:
    found = {}
    for token in tokens:
        match = _DEPTH.fullmatch(token)
        assert match is not None
        n, layer = int(match[1]), int(match[2])
        red, green, blue, _ = depth_colours(n, *((0.3, 1.0) if dark else ()))[layer]
        found[token] = f"rgb({round(255 * red)},{round(255 * green)},{round(255 * blue)})"
    return found


def line(series: Series, name: str, colour: str, **style: Any) -> Trace:
    """A line over steps; few points are marked, for a line through one of them would be invisible."""
    shown = thinned(series)
    trace: Trace = {
        "type": "scatter",
        "mode": "lines+markers" if len(shown) <= 25 else "lines",
        "x": [step for step, _ in shown],
        "y": [rounded(value) for _, value in shown],
        "name": name,
        "line": {"color": colour, "width": 2},
        "marker": {"color": colour, "size": 5},
        "hovertemplate": "%{y:.5g}",
    }
    for key, value in style.items():
        trace[key] = trace[key] | value if isinstance(value, Mapping) and key in trace else value
    return trace


def level(value: float, steps: Sequence[int], name: str, colour: str, dash: str) -> Trace:
    """A figure that does not change, as a line over all steps."""
    ends = [(min(steps), value), (max(steps), value)]
    return line(ends, name, colour, line={"dash": dash, "width": 1.5}, mode="lines")


def interval(trace: Trace, low: float, high: float) -> Trace:
    """The same line with an interval at its last point."""
    n, last = len(trace["y"]), trace["y"][-1]
    bars = {"array": [0.0] * (n - 1) + [rounded(high - last)], "arrayminus": [0.0] * (n - 1) + [rounded(last - low)]}
    error = {"type": "data", "symmetric": False, "thickness": 1.5, "width": 5, "color": trace["line"]["color"]}
    return {**trace, "error_y": error | bars}


def over_steps(y: str, least: tuple[float, float] | None = None, **more: Any) -> dict[str, Any]:
    """Layout of a chart over training steps.

    Args:
        y: title of the axis.
        least: values so close are a constant, and drawn as one, not as noise under a magnifier.
    """
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "training step"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": y}},
        "hovermode": "x unified",
    }
    if least is not None:
        layout["yaxis"]["range"] = list(least)
    return layout | more


def room(values: Sequence[float], least: float) -> tuple[float, float] | None:
    """A range of at least that span around values that differ by less; None where they differ by more."""
    if not values or max(values) - min(values) >= least:
        return None
    middle = (max(values) + min(values)) / 2
    return middle - least / 2, middle + least / 2


def thinned(series: Series) -> Series:
    """At most `MOST_POINTS` points and the last, evenly.

    >>> len(thinned([(i, 0.0) for i in range(4000)]))
    1334
    """
    every = math.ceil(len(series) / MOST_POINTS)
    return series if every <= 1 else [*series[:-1:every], series[-1]]


def rounded(value: float) -> float:
    """Six digits, more than a screen can show."""
    return float(f"{value:.6g}")


def ends_table(lines: Mapping[str, Series], digits: int = 4) -> tuple[list[str], Rows]:
    """First and last value of each line: what a table can tell of it."""
    rows = [
        [name, *(cell for step, value in (series[0], series[-1]) for cell in (str(step), number(value, digits)))]
        for name, series in lines.items()
        if series
    ]
    return ["", "first step", "value", "last step", "value"], rows
