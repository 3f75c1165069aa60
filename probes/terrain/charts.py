"""Charts of a terrain: what its report shows, and a paper would take."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from modulant.reports.drawing.chart import Axis, Bars, Chart, Level, Line, Mark
from modulant.reports.wording import number

Found = Mapping[str, Any]
Figures = Mapping[str, float | None]

_LISTS = {
    "digits": ("digits", "@vermilion"),
    "number_words": ("number words", "@orange"),
    "months": ("months", "@green"),
    "letters": ("letters a–j", "@grey"),
}
_CLOUDS = {
    "": ("the model", "@blue", "solid"),
    "modulated": ("modulated", "@blue", "solid"),
    "original": ("original", "@ink", "dash"),
    "random": ("random weights", "@grey", "dot"),
}
_LAYER = re.compile(r"(?:([\w/]+)/)?(embedded|layer_\d+)/norm")
_DECODER = "decoder"


def charts(found: Found) -> list[Chart]:
    """Those whose figures were measured."""
    curves = found.get("curves", {})
    made = [
        _spectrum(found["figures"], curves.get("spectrum")),
        _cosines(found["figures"], curves.get("cosines")),
        _pentachora(found["figures"]),
        _order(curves.get("order")),
        *_layers(found["figures"]),
        *_layers(found["figures"], _DECODER),
        _both(found["figures"]),
    ]
    return [chart for chart in made if chart is not None]


def clouds_of(figures: Figures) -> list[str]:
    """What layers were measured of: "" of a model alone, ``random`` …, and ``decoder``, ``random/decoder`` …."""
    return list(dict.fromkeys(match[1] or "" for name in figures if (match := _LAYER.fullmatch(name))))


def layers_of(figures: Figures, cloud: str) -> list[str]:
    """``embedded``, ``layer_00`` … that were measured of a cloud."""
    matches = (match for name in figures if (match := _LAYER.fullmatch(name)))
    return [match[2] for match in matches if (match[1] or "") == cloud]


def _spectrum(figures: Figures, curve: Mapping[str, Any] | None) -> Chart | None:
    if curve is None:
        return None
    lines = [
        Line([(i + 1, share) for i, share in enumerate(curve[key])], name, colour, dash=dash, marker=0)
        for key, name, colour, dash in (
            ("cumulative", "the vocabulary", "@blue", "solid"),
            ("null_cumulative", "isotropic Gaussian", "@grey", "dash"),
        )
    ]
    dims, ratio = figures["spectrum/dims_90"], figures["spectrum/participation_ratio"]
    title = f"90% of the variance in {number(dims, 0)} dimensions; participation ratio {number(ratio, 1)}"
    reading = (
        "the faster a line rises, the fewer directions hold what there is. Far above the dashed line, most of the "
        "space is little used."
    )
    return Chart(
        "spectrum", title, {"": lines}, Axis("share of variance"), Axis("largest eigenvalues"), reading=reading
    )


def _cosines(figures: Figures, curve: Mapping[str, Sequence[float]] | None) -> Chart | None:
    if curve is None:
        return None
    lines = []
    for key, name, colour, dash in (
        ("rows", "rows", "@blue", "solid"),
        ("centred", "rows, centred", "@green", "solid"),
        ("gaussian", "Gaussian, same covariance and mean", "@grey", "dash"),
    ):
        width = 2 / len(curve[key])
        points = [(-1 + (i + 0.5) * width, density) for i, density in enumerate(curve[key])]
        # The ends where no line has anything show nothing.
        shown = [i for i in range(len(points)) if any(curve[other][i] for other in curve)]
        lines.append(Line(points[shown[0] : shown[-1] + 1], name, colour, dash=dash, marker=0))
    mean = figures.get("cosine/mean")
    title = "Cosines of pairs of rows" + (f": mean {number(mean, 3)}" if mean is not None else "")
    reading = "a hump right of 0 means that rows share a direction; what differs from the dashed line is structure."
    return Chart("cosines", title, {"": lines}, Axis("density"), Axis("cosine"), reading=reading)


def _pentachora(figures: Figures) -> Chart | None:
    names = {
        "cv": "rows",
        "cv_unit": "rows of length 1",
        "cv_null_covariance": "Gaussian,\ncovariance",
        "cv_null_diagonal": "Gaussian,\ndiagonal",
        "cv_null_isotropic": "Gaussian,\nisotropic",
    }
    shown = {name: figures[f"pentachoron/{key}"] for key, name in names.items() if f"pentachoron/{key}" in figures}
    heights = {name: value for name, value in shown.items() if value is not None}
    if not heights:
        return None
    colours = ["@blue" if name.startswith("rows") else "@grey" for name in heights]
    title = f"Volumes of pentachora: CV {number(next(iter(heights.values())), 3)}, and that of Gaussian rows"
    bars = Bars(list(heights.values()), colours, 3)
    reading = "blue is the model, grey is noise of the same size; equal heights mean that the shape says nothing."
    return Chart("pentachora", title, {"": [bars]}, Axis("CV of volumes"), Axis("", list(heights)), reading=reading)


def _order(curves: Mapping[str, Mapping[str, Any]] | None) -> Chart | None:
    lines, curves = [], curves or {}
    shown = {key: curves[key]["cosine_by_distance"] for key in _LISTS if key in curves}
    longest = max(map(len, shown.values()), default=0)
    for key, means in shown.items():
        name, colour = _LISTS[key]
        padded = [*means, *[math.nan] * (longest - len(means))]  # the lines of a chart have the same places
        lines.append(Line([(i + 1, mean) for i, mean in enumerate(padded)], name, colour))
    if not lines:
        return None
    said = ", ".join(f"{_LISTS[key][0]} {number(curves[key]['r'], 2)}" for key in ("digits", "letters") if key in shown)
    title = "Cosine by distance" + (f", correlation: {said}" if said else "")
    x, reading = (
        Axis("distance in the list"),
        "a line that falls to the right puts neighbours in a list nearer together.",
    )
    return Chart("order", title, {"": lines}, Axis("mean cosine"), x, reading=reading)


def _stack(cloud: str) -> tuple[str, str]:
    """Whose layers they are, and of which stack.

    >>> _stack("random/decoder"), _stack("decoder"), _stack("random")
    (('random', 'decoder'), ('', 'decoder'), ('random', ''))
    """
    whose, slash, stack = cloud.rpartition("/")
    return (whose, stack) if slash or stack == _DECODER else (stack, "")


def _layers(figures: Figures, stack: str = "") -> list[Chart]:
    """A chart for each quantity, one line a cloud."""
    clouds = [cloud for cloud in clouds_of(figures) if _stack(cloud)[1] == stack]
    if not clouds:
        return []
    names = layers_of(figures, clouds[0])
    axis = Axis("layer", ["in" if name == "embedded" else str(int(name.removeprefix("layer_"))) for name in names])

    def lines(key: str) -> list[Line]:
        made = []
        for cloud in clouds:
            label, colour, dash = _CLOUDS[_stack(cloud)[0]]
            values = [figures.get(f"{cloud}/{name}/{key}" if cloud else f"{name}/{key}") for name in names]
            points = [(float(i), math.nan if value is None else value) for i, value in enumerate(values)]
            made.append(Line(points, label, colour, dash=dash))
        return made

    rank = "participation_ratio_unbiased"
    zero = Level(0.0, "isotropic directions", "@grey", "dot")
    found: dict[str, tuple[str, Mapping[str, Sequence[Mark]], str, str]] = {
        "layers_norm": (
            "Length of the stream, without first tokens",
            {"": lines("norm_without_first")},
            "mean norm",
            "left is the input, right the last layer. A rise means that layers add to the stream.",
        ),
        "layers_cosine": (
            "Cosines of tokens",
            {
                "between texts (anisotropy)": [zero, *lines("anisotropy")],
                "within a text, centred": [zero, *lines("cosine_within_centred")],
            },
            "mean cosine",
            "at 0 tokens point in unrelated directions, at 1 all in the same.",
        ),
        "layers_rank": (
            "Effective dimensions of the stream's tokens",
            {"": lines(rank)},
            "participation ratio",
            "how many directions the tokens use: the lower, the flatter the cloud.",
        ),
    }
    made = []
    for name, (title, views, y, reading) in found.items():
        if stack:
            name, title = f"{stack}_{name}", f"Decoder: {title[0].lower()}{title[1:]}"
        chart = Chart(name, title, views, Axis(y), axis, reading=reading)
        made += [chart] * bool(chart.values)
    return made


def _both(figures: Figures) -> Chart | None:
    """Likeness of encoder and decoder layer by layer, one line a cloud."""
    matches = [match for name in figures if (match := re.fullmatch(r"(?:(\w+)/)?encoder_decoder/(\w+)/cka", name))]
    clouds, layers = (list(dict.fromkeys(match[i] or "" for match in matches)) for i in (1, 2))
    if not matches:
        return None
    views: dict[str, list[Mark]] = {}
    for key, label in (("cka", "CKA"), ("cosine_centred", "cosine, centred")):
        views[label] = [Level(0.0, "tokens paired at random", "@grey", "dot")]
        for cloud in clouds:
            name, colour, dash = _CLOUDS[cloud]
            prefix = f"{cloud}/" if cloud else ""
            values = [figures.get(f"{prefix}encoder_decoder/{layer}/{key}") for layer in layers]
            points = [(float(i), math.nan if value is None else value) for i, value in enumerate(values)]
            views[label].append(Line(points, name, colour, dash=dash))
    named = {"embedded": "in", "last": "last"}
    axis = Axis("layer of both", [named.get(one) or str(int(one.removeprefix("layer_"))) for one in layers])
    title = "A token in the encoder and in the decoder"
    reading = "1: both stacks say the same of a token; the dotted 0: no more alike than two tokens at random."
    chart = Chart("encoder_decoder", title, views, Axis("likeness"), axis, reading=reading)
    return chart if chart.values else None
