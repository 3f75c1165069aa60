"""What the page shows of biases by relative position: a table of the stacks, and the curve of each head."""

from collections.abc import Mapping, Sequence
from typing import Any

from modulant.reports.drawing.chart import COLOURS, Axis, Chart, Line
from modulant.reports.table import Table
from modulant.reports.wording import number
from probes.topology.summary import beyond

_NEAR = 16  # tokens, in the view that shows short distances
_HEADS = {
    "spearman_left": "falls to the left",
    "spearman_right": "falls to the right",
    "asymmetry": "left − right",
    "entropy": "entropy",
    "near": "largest at ≤ 1",
}
_MOST = 8  # heads that have a colour each


def table(figures: Mapping[str, Any], tests: int) -> Table:
    """A row a stack: each figure with its null."""
    rows = []
    for place in (key.removesuffix("/range") for key in figures if key.startswith("positions/") and "/range" in key):
        row = [place.removeprefix("positions/"), str(figures[f"{place}/near_n"])]
        for name in _HEADS:
            key = f"{place}/{name}"
            mark = " *" if beyond(figures, key, tests) else ""
            null = figures[f"{key}_null"]
            row.append(number(figures[key], 3) + (f" ({number(null, 3)})" if null is not None else "") + mark)
        source = [f"{figures[f'source/{place}/{kind}']} {kind}" for kind in ("local", "global", "mixed")]
        rows.append([*row, number(figures[f"{place}/range"], 2), ", ".join(source)])
    return Table(["mean over heads", "heads", *_HEADS.values(), "range, nat", "source's kinds"], rows)


def charts(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Two charts a stack, of its first layer that has biases: all distances, and short ones."""
    made = []
    for location in dict.fromkeys(row["location"] for row in rows):
        here = [row for row in rows if row["location"] == location and row["head"] is not None]
        heads = [row for row in here if row["layer"] == here[0]["layer"]]
        for name, limit in (("", None), ("_near", _NEAR)):
            title = f"{location.capitalize()}: bias of each head by relative position"
            title += f", up to {limit} tokens" if limit else ""
            views = {"": _curves(heads, limit)}
            x = Axis("key − query, tokens", whole=True)
            made.append(Chart(f"positions_{location}{name}", title, views, Axis("bias, nat"), x))
    return made


def _curves(heads: Sequence[Mapping[str, Any]], limit: int | None) -> list[Line]:
    lines = []
    for i, row in enumerate(heads):
        points = [
            (distance, value)
            for nearest, count, value in row["curve"]
            for distance in range(nearest - (nearest < 0) * (count - 1), nearest + (nearest >= 0) * (count - 1) + 1)
            if limit is None or abs(distance) <= limit
        ]
        few = len(heads) <= _MOST
        name = f"head {row['head']}" if few else "" if i else "a head"
        lines.append(Line(points, name, COLOURS[i] if few else "@blue", width=1.5, opacity=1.0 if few else 0.4))
    return lines
