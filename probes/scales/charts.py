"""Charts of a comparison: what its report shows, and a paper would take."""

from collections.abc import Mapping
from typing import Any

from modulant.reports.drawing.chart import Axis, Chart, Interval, Line
from modulant.reports.wording import number

Found = Mapping[str, Any]  # what report.json holds

_FITS = {
    "rotation/cosine": "rotation: cosine",
    "rotation_scaled/r2": "rotation and factor: R²",
    "ridge/r2": "linear map to the smaller: R²",
    "ridge_back/r2": "linear map to the larger: R²",
    "cka/unbiased": "unbiased CKA",
    "rsa/spearman": "RSA: Spearman",
    "neighbours/overlap": "ten neighbours: overlap",
    "volumes/r_partial": "volumes given distances: r",
}


def charts(found: Found) -> list[Chart]:
    """Those whose figures were measured."""
    curves = found["curves"]
    made = [_fits(found), _tokens(found, curves), _pairs(found, curves)]
    return [chart for chart in made if chart is not None]


def _fits(found: Found) -> Chart | None:
    figures, marks = found["figures"], []
    for name, label in _FITS.items():
        null = found["nulls"].get(name)
        ends = figures.get(f"{name}_low"), figures.get(f"{name}_high")
        if null is None or figures[name] is None or ends[0] is None or ends[1] is None:
            continue
        about = (null["mean"] - 2 * null["sd"], null["mean"] + 2 * null["sd"])
        marks += [
            Interval(null["mean"], about, label, "@grey"),
            Interval(figures[name], (ends[0], ends[1]), label, "@blue"),
        ]
    if not marks:
        return None
    note = "Blue: 95% of the resamples of rows. Grey: mean of the null ± 2 sd of its draws."
    rows = Axis("", list(dict.fromkeys(mark.name for mark in marks)))
    title = "Held-out rows (blue) and their null (grey)"
    reading = "a row is a way to compare the two models; the further blue lies right of grey, the more they share."
    return Chart("fits", title, {"": marks}, rows, Axis("cosine, R², r or share"), note, reading)


def _tokens(found: Found, curves: Mapping[str, Any]) -> Chart | None:
    if "cosines" not in curves:
        return None
    lines = []
    for key, name, colour in (
        ("null_cosines", "null: fitted to permuted anchors", "@grey"),
        ("cosines", "held-out rows after the rotation", "@blue"),
    ):
        width = 2 / len(curves[key])
        points = [(-1 + (i + 0.5) * width, density) for i, density in enumerate(curves[key])]
        lines.append(Line(points, name, colour, marker=0, steps=True, fill=True))
    figures = found["figures"]
    title = f"Cosine after the rotation: mean {number(figures['rotation/cosine'], 3)}"
    title += f", of the null {number(figures['rotation/cosine_null'], 3)}"
    x, reading = (
        Axis("centred cosine of a held-out row"),
        "blue right of grey: a rotation carries words to their own places.",
    )
    return Chart("cosines", title, {"": lines}, Axis("density"), x, reading=reading)


def _pairs(found: Found, curves: Mapping[str, Any]) -> Chart | None:
    if "scatter" not in curves:
        return None
    views = {
        label: [Line(curves["scatter"][key], "", colour, width=0, marker=3, opacity=0.4)]
        for label, key, colour in (
            ("rows that belong together", "matched", "@blue"),
            ("null: rows of one model permuted", "permuted", "@grey"),
        )
    }
    figures = found["figures"]
    title = f"Cosines of pairs of held-out rows: Spearman {number(figures['rsa/spearman'], 3)}"
    title += f", of the null {number(figures['rsa/spearman_null'], 3)}"
    y, x = (Axis(f"cosine in {_name(found, side)}") for side in ("large", "small"))
    reading = "a point is two words. A cloud along the diagonal: what is near in one model is near in the other."
    return Chart("pairs", title, views, y, x, reading=reading)


def _name(found: Found, side: str) -> str:
    """Last part of a path or hub id."""
    name: str = found["models"][side]["name"]
    return name.rstrip("/").rpartition("/")[2]
