"""A chart as plotly's dictionaries, for page.js to draw."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from modulant.reports.drawing.chart import (
    DEPTH,
    SKINS,
    STEPS,
    Axis,
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

Trace = dict[str, Any]

MOST_OPEN = 5  # charts that a page shows before it folds the others
MOST_POINTS = 1500  # of a line; a page of a long run must stay small


def drawn(charts: Sequence[Chart]) -> dict[str, Any]:
    """Everything that page.js needs: ``charts``, and as ``skins`` the colours of their tokens by light and dark."""
    found = [
        {
            "name": chart.name,
            "views": [[_trace(mark, chart, marks) for mark in marks] for marks in chart.views.values()],
            "layout": _layout(chart),
        }
        for chart in charts
    ]
    depths = {match[0] for match in re.finditer(DEPTH, json.dumps(found))}
    return {
        "skins": {
            name: {token: colour(token, name) for token in (*tokens, *sorted(depths))} for name, tokens in SKINS.items()
        },
        "charts": found,
    }


def _trace(mark: Mark, chart: Chart, view: Sequence[Mark]) -> Trace:
    match mark:
        case Line():
            return _line(mark, chart.x)
        case Level():
            places = [x for other in view if isinstance(other, Line) for x, _ in other.points]
            places = list(_around(chart)) or places or [0, len(chart.x.names) - 1]
            ends = [(min(places), mark.value), (max(places), mark.value)]
            return _line(Line(ends, mark.name, mark.colour, 1.5, mark.dash, marker=0), chart.x)
        case Bars():
            return {
                "type": "bar",
                "x": list(chart.x.names),
                "y": [rounded(height) for height in mark.heights],
                "text": mark.texts,
                "textposition": "outside",
                "cliponaxis": False,
                "marker": {"color": list(mark.colours)},
                "hovertemplate": "%{x}: %{y:.6f}<extra></extra>",
                "showlegend": False,
            }
        case Heat():
            low, high = spread_out(mark.values(), chart.y.least)
            return {
                "type": "heatmap",
                "x": list(chart.x.names or mark.columns),
                "y": list(chart.y.names),
                "z": mark.cells if mark.numbers else [[rounded(value) for value in row] for row in mark.cells],
                **_texts(mark),
                "hovertemplate": "%{y}, %{x}: %{z:.6f}<extra></extra>",
                "colorscale": "Viridis",
                "zmin": low,
                "zmax": high,
                "xgap": 2 if mark.numbers else 0,
                "ygap": 2,
                "colorbar": {"title": {"text": mark.title}, "outlinewidth": 0, "thickness": 14},
            }
        case Band():
            known = [point for point in mark.points if all(math.isfinite(y) for y in point[1:])]
            outline = [(x, low) for x, low, _ in known] + [(x, high) for x, _, high in reversed(known)]
            trace = _line(Line(outline, mark.name, mark.colour, 0, marker=0), chart.x)
            filled = {"mode": "lines", "fill": "toself", "opacity": 0.2, "hoverinfo": "skip"}
            return {key: value for key, value in (trace | filled).items() if key != "hovertemplate"}
        case Interval():
            low, high = mark.ends
            return {
                "type": "scatter",
                "mode": "markers",
                "x": [rounded(mark.value)],
                "y": [mark.name],
                "marker": {"color": mark.colour, "size": 10},
                "error_x": _error(mark.value, mark.ends, mark.colour, 1) | {"width": 0},
                "name": mark.name,
                "hovertemplate": f"%{{x:+.4f}} [{low:+.4f}, {high:+.4f}]<extra></extra>",
                "showlegend": False,
            }


def _texts(mark: Heat) -> Trace:
    if not mark.numbers:
        return {}
    return {"text": [[f"{value:.4f}" for value in row] for row in mark.cells], "texttemplate": "%{text}"}


def _line(mark: Line, axis: Axis) -> Trace:
    shown = thinned(mark.points)
    trace: Trace = {
        "type": "scatter",
        "mode": "+".join([*["lines"] * (mark.width > 0), *["markers"] * (mark.size > 0)]),
        "x": [axis.names[int(x)] if axis.names else x for x, _ in shown],
        "y": [rounded(y) if math.isfinite(y) else None for _, y in shown],
        "name": mark.name,
        "line": {"color": mark.colour, "width": mark.width, "dash": mark.dash},
        "marker": {"color": mark.colour, "size": mark.size if len(shown) > 1 else max(mark.size, 9)},
        "cliponaxis": not mark.size,  # else a point at step 0 is half a point
        "opacity": mark.opacity,
    }
    trace |= {"hovertemplate": "%{y:.5g}"} if mark.name else {"hoverinfo": "skip", "showlegend": False}
    if mark.hollow:
        trace["marker"] |= {"color": "@paper", "line": {"color": mark.colour, "width": 2}}
    if mark.steps:
        trace["line"] |= {"shape": "hvh"}
    if mark.fill:
        trace["fill"] = "tozeroy"
    if mark.interval:
        trace["error_y"] = _error(mark.points[-1][1], mark.interval, mark.colour, len(shown))
    return trace


def _error(value: float, ends: tuple[float, float], colour: str, n: int) -> dict[str, Any]:
    """An interval at the last of `n` points."""
    low, high = ends
    before = [0.0] * (n - 1)
    error = {"type": "data", "symmetric": False, "thickness": 2, "width": 5, "color": colour}
    return error | {"array": [*before, rounded(high - value)], "arrayminus": [*before, rounded(value - low)]}


def _layout(chart: Chart) -> dict[str, Any]:
    marks = [mark for view in chart.views.values() for mark in view]
    x: dict[str, Any] = {"title": {"text": chart.x.title}}
    y: dict[str, Any] = {"title": {"text": chart.y.title}}
    for axis, of in ((x, chart.x), (y, chart.y)):
        if of.names:
            axis |= {"type": "category", "categoryorder": "array", "categoryarray": list(of.names), "showgrid": False}
    if chart.x.names and any(isinstance(mark, Heat) and not mark.numbers for mark in marks):
        # Room is made here: plotly's own margin and angle for long names change each other back and forth.
        x |= {"tickangle": -60, "automargin": False}
    if chart.y.names:
        y["range"] = [len(chart.y.names) - 0.5, -0.5]
    elif only := _around(chart):
        x |= {"range": only, "tickvals": [sum(only) / 2]}
    elif chart.x is STEPS:
        x["rangemode"] = "tozero"
    elif chart.x.whole:
        places = [x for mark in marks if isinstance(mark, Line) for x, _ in mark.points]
        x |= {"tick0": 0, "dtick": math.ceil((max(places) - min(places) + 1) / 16)}
    columns = next((mark.columns for mark in marks if isinstance(mark, Heat) and mark.columns), ())
    if isinstance(columns, range) and not chart.x.names:  # heads: whole numbers, and no half ones between them
        x |= {"tick0": 0, "dtick": math.ceil(len(columns) / 16)}
    margin = {"margin": {"l": 60, "r": 24, "t": 12, "b": 130}} if "tickangle" in x else {}
    bands = [mark for mark in marks if isinstance(mark, Level) and mark.spread]
    low, high = min(chart.values), max(chart.values)
    if bands:  # which no axis makes room for by itself
        pad = 0.06 * (high - low) or 0.01
        y["range"] = [low - pad, high + pad]
    elif not chart.y.names and high - low < chart.y.least:
        y["range"] = list(spread_out(chart.values, chart.y.least))
    layout: dict[str, Any] = {"xaxis": x, "yaxis": y, **margin}
    layout["shapes"] = [
        {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "layer": "below", "line": {"width": 0}, "opacity": 0.15}
        | {"y0": band.value - band.spread, "y1": band.value + band.spread, "fillcolor": band.colour}
        for band in bands
    ]
    if chart.kind is Line:
        layout |= {"hovermode": "x unified", "showlegend": True}
    if chart.kind is Interval:
        x |= {"zeroline": True, "zerolinecolor": "@ink", "showgrid": True}
        layout["height"] = 150 + 34 * len(chart.y.names)
    return layout


def _around(chart: Chart) -> tuple[float, ...]:
    """Ends of the x axis where everything was measured at one step; else none."""
    steps = {x for marks in chart.views.values() for mark in marks if isinstance(mark, Line) for x, _ in mark.points}
    return (min(steps) - 1, max(steps) + 1) if chart.x is STEPS and len(steps) == 1 else ()


def thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most `MOST_POINTS` points and the last, evenly.

    >>> len(thinned([(i, 0.0) for i in range(4000)]))
    1334
    """
    every = math.ceil(len(points) / MOST_POINTS)
    return points if every <= 1 else [*points[:-1:every], points[-1]]


def rounded(value: float) -> float:
    """Six digits, more than a screen can show."""
    return float(f"{value:.6g}")
