"""Charts of spectra: lag-1 and spectra along tokens, phases of heads, the lens; each with its nulls."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from modulant.reports.drawing.chart import Axis, Chart, Level, Line, Mark
from modulant.reports.wording import number
from probes.spectra.heads import BANDS
from probes.spectra.texts import PROMPTS

Found = Mapping[str, Any]
Figures = Mapping[str, float | None]

_CLOUD = r"((?:original/|modulated/)?(?:decoder/)?)"
_PLACE = re.compile(rf"{_CLOUD}(embedded|layer_\d+)/lag1")
_HEADS = re.compile(rf"{_CLOUD}(layer_\d+)/heads/(\w+)/ppc")
_LENS = re.compile(rf"{_CLOUD}lens/(layer_\d+)/range")
_WAYS = {
    "": ("the text", "@blue", "solid"),
    "_input_shuffled": ("tokens shuffled before the pass", "@vermilion", "dash"),
    "_rows_shuffled": ("rows shuffled", "@grey", "dot"),
    "_phase_randomised": ("phases randomised", "@green", "dashdot"),
}
_SLOWEST = 2  # points of the grid that are not shown: below it tapers have lost what was taken away as a trend


def charts(found: Found) -> list[Chart]:
    """Those whose figures were measured."""
    made: list[Chart | None] = []
    for cloud in clouds_of(found["figures"]):
        said, name = words_of(cloud), cloud.replace("/", "_")
        made += [
            _lag(found, cloud, name, said),
            _spectra(found, cloud, name, said),
            _heads(found["figures"], cloud, name, said),
            _lens(found["figures"], cloud, name, said),
        ]
    return [chart for chart in made if chart is not None and chart.values]


def clouds_of(figures: Figures) -> list[str]:
    """``original/`` and ``modulated/`` of a run, "" of a model; of a T5 with and without ``decoder/``."""
    starts = (name.partition("/")[0] for name in figures)
    found = dict.fromkeys(f"{start}/" for start in starts if start in ("original", "modulated"))
    both = [f"{cloud}{stack}" for cloud in found or [""] for stack in ("", "decoder/")]
    return [cloud for cloud in both if any(name.startswith(cloud) for name in figures)]


def words_of(cloud: str) -> str:
    """``, modulated, decoder``."""
    return "".join(f", {word}" for word in cloud.split("/") if word)


def places_of(figures: Figures, cloud: str) -> list[str]:
    """``embedded``, ``layer_00`` … whose tokens were measured."""
    return [m[2] for name in figures if (m := _PLACE.fullmatch(name)) and m[1] == cloud]


def _axis(places: Sequence[str]) -> Axis:
    every = max(1, math.ceil(len(places) / 16))
    shown = ["in" if place == "embedded" else str(int(place.removeprefix("layer_"))) for place in places]
    return Axis("layer", [name if i % every == 0 else "" for i, name in enumerate(shown)])


def _line(figures: Figures, names: Sequence[str], label: str, colour: str, dash: str, joined: bool = True) -> Line:
    values = [figures.get(name) for name in names]
    points = [(float(i), math.nan if value is None else value) for i, value in enumerate(values)]
    return Line(points, label, colour, width=2.0 if joined else 0, dash=dash, marker=3 if joined else 8)


def _lag(found: Found, cloud: str, name: str, said: str) -> Chart | None:
    figures, places = found["figures"], places_of(found["figures"], cloud)
    views: dict[str, Sequence[Mark]] = {}
    for variant, label in (("", "states"), ("unit/", "states of length 1")):
        marks: list[Mark] = [Level(0.0, "no order", "@grey", "solid")]
        names = [f"{cloud}{place}/{variant}lag1" for place in places]
        marks += [_line(figures, [f"{one}{way}" for one in names], *look) for way, look in _WAYS.items()]
        ends = [found["intervals"].get(one) for one in names]
        if all(ends):
            for k, low_high in enumerate(("95% over texts", "")):
                points = [(float(i), end[k]) for i, end in enumerate(ends)]
                marks.append(Line(points, low_high, "@blue", width=0.8, opacity=0.6, marker=0))
        views[label] = marks
    if not places:
        return None
    last = places[-1]
    value, other = (figures.get(f"{cloud}{last}/lag1{way}") for way in ("", "_input_shuffled"))
    title = f"Lag-1 along tokens{said}: {number(value, 2)} in the last layer, {number(other, 2)} with shuffled tokens"
    y, reading = (
        Axis("lag-1 autocorrelation", least=0.1),
        "at 0 a token's state says nothing of the next one's; above 0 they are alike, below they alternate.",
    )
    return Chart(f"{name}lag1", title, views, y, _axis(places), reading=reading)


def _spectra(found: Found, cloud: str, name: str, said: str) -> Chart | None:
    spectra = found.get("spectra") or {}
    places = [place for place in places_of(found["figures"], cloud) if f"{cloud}{place}" in spectra.get("power", {})]
    if not places:
        return None
    chosen = dict.fromkeys((places[0], places[len(places) // 2], places[-1]))
    views: dict[str, Sequence[Mark]] = {}
    for place in chosen:
        marks: list[Mark] = [Level(0.0, "white", "@grey", "solid")]
        for way, (label, colour, dash) in _WAYS.items():
            power = spectra["power"][f"{cloud}{place}"][way.removeprefix("_") or "observed"]
            points = [
                (f, 10 * math.log10(one) if one > 0 else math.nan)
                for f, one in list(zip(spectra["frequencies"], power, strict=True))[_SLOWEST:]
            ]
            marks.append(Line(points, label, colour, width=1.5, dash=dash, marker=0))
        views[place.replace("layer_", "layer ").replace(" 0", " ")] = marks
    slope = found["figures"].get(f"{cloud}{places[-1]}/slope")
    title = f"Spectra along tokens{said}: slope {number(slope, 2)} in the last layer"
    axis = Axis("power against white, dB", least=1.0)
    x, reading = (
        Axis("frequency, cycles a token"),
        "a flat line at 0 is noise; higher on the left means slow change along a text.",
    )
    return Chart(f"{name}spectra", title, views, axis, x, reading=reading)


def _heads(figures: Figures, cloud: str, name: str, said: str) -> Chart | None:
    matches = [m for one in figures if (m := _HEADS.fullmatch(one)) and m[1] == cloud]
    places = list(dict.fromkeys(m[2] for m in matches))
    views: dict[str, Sequence[Mark]] = {}
    for band in dict.fromkeys(m[3] for m in matches):
        at = [f"{cloud}{place}/heads/{band}/ppc" for place in places]
        low, high = (f"1/{number(1 / end, 1).removesuffix('.0')}" for end in BANDS[band])
        views[f"{band}: {low} to {high} cycles a token"] = [
            _line(figures, at, "the text", "@blue", "solid"),
            _line(
                figures,
                [f"{one}_input_shuffled" for one in at],
                "tokens shuffled before the pass",
                "@vermilion",
                "dash",
            ),
            _line(figures, [f"{one}_surrogate" for one in at], "phases randomised, each head", "@grey", "dot"),
        ]
    if not views:
        return None
    title = f"Agreement of phases between the heads of a layer{said}"
    y = Axis("PPC, mean over pairs", least=0.05)
    reading = "1: heads move in step, 0: not at all. Only what lies above the dashed line is due to the order of words."
    return Chart(f"{name}heads", title, views, y, _axis(places), reading=reading)


def _lens(figures: Figures, cloud: str, name: str, said: str) -> Chart | None:
    layers = [m[2] for one in figures if (m := _LENS.fullmatch(one)) and m[1] == cloud]
    views: dict[str, Sequence[Mark]] = {}
    for layer in layers[:4]:
        at = [f"{cloud}lens/{layer}/{prompt}/coherence" for prompt in PROMPTS]
        views[layer.replace("layer_", "layer ").replace(" 0", " ")] = [
            _line(figures, at, "our frequencies", "@blue", "solid", False),
            _line(figures, [f"{one}_permuted" for one in at], "dealt to other tokens (mean)", "@grey", "dot", False),
            _line(figures, [f"{one}_reversed" for one in at], "reversed: rare words high", "@orange", "dash", False),
        ]
    if not views:
        return None
    title = f"The lens, synthetic{said}: coherence of waves that we gave to words"
    y, reading = Axis("coherence", least=0.2), "points that lie together: the waves that we gave to words show nothing."
    return Chart(f"{name}lens", title, views, y, Axis("", list(PROMPTS)), reading=reading)
