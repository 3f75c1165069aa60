"""Heat maps of what a modulator does: its figures by layer and expert over steps, and how far it moves each token."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modulant.reports.drawing.chart import Axis, Chart, Heat, Mark
from modulant.reports.series import Series, finite_points, known
from modulant.reports.wording import number

_MOST_COLUMNS = 100
_LONGEST = 20  # of a token's name
# Figures in reading order, with what they are; a modulator's own others follow under their names.
_QUANTITIES = {
    "push": "push ‖h′ − h‖ / ‖h‖",
    "gate": "gate, mean",
    "gate_sd": "gate, sd",
    "validity": "validity, mean",
    "validity_sd": "validity, sd",
    "volume": "squared volume, mean",
    "volume_cv": "squared volume, sd / mean",
    "degenerate": "share of degenerate simplices",
    "deformation": "deformation (edge lengths)",
}
_KEY = re.compile(r"\w+/layer_(\d+)(?:_(\w+))?/(\w+)")


def inside(metrics: Mapping[str, Series]) -> list[Chart]:
    """What `ModulatorHealth` has logged, over steps: figures by layer, and those by layer and expert."""
    layers: dict[str, dict[str, Series]] = {}
    experts: dict[str, dict[str, Series]] = {}
    for key, series in sorted(metrics.items()):
        if (match := _KEY.fullmatch(key)) and (points := finite_points(series)):
            layer, expert, figure = int(match[1]), match[2], match[3]
            row = f"{layer}" if expert is None else f"{layer} · {expert}"
            (layers if expert is None else experts).setdefault(figure, {})[row] = points
    found = [
        _over_steps("inside_layers", "layer", layers),
        _over_steps("inside_experts", "layer · expert", experts),
    ]
    return [chart for chart in found if chart is not None]


def _over_steps(name: str, rows_of: str, figures: Mapping[str, Mapping[str, Series]]) -> Chart | None:
    names: list[str] = []
    views: dict[str, list[Mark]] = {}
    title = ""
    for figure in sorted(figures, key=lambda one: [*_QUANTITIES, one].index(one)):
        rows = figures[figure]
        names = names or list(rows)
        steps = sorted(set.intersection(*(set(dict(points)) for points in rows.values())))
        if list(rows) != names or not steps:  # a row that was never finite
            continue
        every = math.ceil(len(steps) / _MOST_COLUMNS)
        steps = steps if every == 1 else [*steps[:-1:every], steps[-1]]
        cells = [[dict(points)[step] for step in steps] for points in rows.values()]
        what = _QUANTITIES.get(figure, figure)
        views[figure] = [Heat(cells, what, steps, numbers=False)]
        if not title:
            ends = [row[-1] for row in cells]
            title = f"{what[0].upper()}{what[1:]}: {number(min(ends))} to {number(max(ends))} at the end"
    return Chart(name, title, views, Axis(rows_of, names, least=1e-6)) if views else None


def moved_tokens(texts: Iterable[Mapping[str, Any]]) -> list[Chart]:
    """How far each token of an example prompt is moved at each layer, where a report's texts have an inspection."""
    found: list[Chart] = []
    for text in texts:
        seen = text.get("inspection")
        if seen and all(known(value) for row in (*seen["moved"], seen["drift"]) for value in row):
            tokens, drift = _distinct(seen["tokens"]), seen["drift"]
            cells = [list(column) for column in zip(*seen["moved"], strict=True)]
            most = sorted(range(len(tokens)), key=lambda i: -drift[i])[:3]
            named = ", ".join(f"{tokens[i]} {number(drift[i])}" for i in most)
            mean = number(sum(drift) / len(drift))
            note = f"After the last layer, 1 − cosine with the original: mean {mean}; most: {named}."
            heat = Heat(cells, _QUANTITIES["push"], numbers=False)
            layers = Axis("layer", [str(layer) for layer in seen["layers"]], least=1e-6)
            chart = Chart(f"moved_{len(found)}", text["prompt"], {"": [heat]}, layers, Axis("token", tokens), note)
            found.append(chart)
    return found


def _distinct(tokens: Sequence[str]) -> list[str]:
    """Tokens as names of an axis, where equal names would be one place, and long ones and tags would not show.

    >>> _distinct(["▁of", "▁a", "▁of", "</s>"])
    ['▁of', '▁a', '▁of (2)', '‹/s›']
    """
    tokens = [token.replace("<", "‹").replace(">", "›") for token in tokens]
    short = [token if len(token) <= _LONGEST else f"{token[: _LONGEST - 1]}…" for token in tokens]
    return [f"{token} ({n})" if (n := 1 + short[:i].count(token)) > 1 else token for i, token in enumerate(short)]
