"""A dot for each model and figure, over a bar for its null."""

from collections.abc import Mapping, Sequence
from typing import Any

from modulant.reports.drawing.chart import Axis, Chart, Interval

SURE = 2.0  # standard deviations of a null on both sides


def charts(found: Mapping[str, Any]) -> dict[str, list[Chart]]:
    """Battery → a chart a headline figure that any model has; none where every figure was asked for."""
    if found["all"]:
        return {}
    made = {
        battery: [_chart(battery, row, found["models"]) for row in rows if any(_numbers(row["values"]))]
        for battery, rows in found["batteries"].items()
    }
    return {battery: some for battery, some in made.items() if some}


def _chart(battery: str, row: Mapping[str, Any], models: Sequence[str]) -> Chart:
    marks = []
    names = [model for model in models if row["values"].get(model) is not None]
    for name in names:
        if (null := row["nulls"].get(name)) is not None:
            spread = SURE * (null["sd"] or 0.0)
            ends = (null["mean"] - spread, null["mean"] + spread)
            marks.append(Interval(null["mean"], ends, name, "@grey"))
    for name in names:
        value = row["values"][name]
        marks.append(Interval(value, (value, value), name, "@blue"))
    slug = row["name"].replace("/", "_").replace(".", "_")
    reading = "a row is a model; blue far from grey is more than chance would give."
    return Chart(f"{battery}_{slug}", row["name"], {"": marks}, Axis(names=names), Axis(row["unit"]), reading=reading)


def _numbers(values: Mapping[str, float | None]) -> list[bool]:
    return [value is not None for value in values.values()]
