"""Charts of a wave model, drawn from saved numbers alone: report.json and tensors.npz."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from modulant.reports.drawing.chart import LAYERS, Axis, Chart, Heat, Level, Line, Mark
from modulant.reports.wording import number

Found = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray[Any, Any]]

_MODELS = {"": ("trained", "@blue", "solid"), "untrained_": ("untrained", "@grey", "dot"),
           "baseline_": ("RoPE baseline", "@orange", "dash")}  # fmt: skip
_PACKETS = {"commonest": "@blue", "median": "@green", "rarest": "@vermilion"}
_HEADS = ("@blue", "@vermilion", "@green", "@orange", "@purple", "@sky", "@ink", "@grey")


def charts(found: Found, arrays: Arrays) -> list[Chart]:
    """Those whose numbers are there."""
    made = [
        _learning(found),
        _omega(found, arrays),
        _phase(found, arrays),
        _phase_histogram(found, arrays),
        _harmonic_amplitudes(found, arrays),
        _packets(found, arrays),
        _interference(found, arrays),
        _by_lag(found, arrays),
        _attention(arrays),
        _fringes(found, arrays),
        _temperature(arrays),
        _growth(found, arrays),
        _spectrum(found, arrays),
        _anneal(found),
    ]
    return [replace(chart, reading=_READINGS[chart.name]) for chart in made if chart is not None]


_READINGS = {
    "learning": "the lower, the better the text is predicted; training and validation should fall together.",
    "omega": "a point is a token; on the dashed line it has the frequency that it began with.",
    "phase": "a row is a token, a cell the phase of one of its waves; one colour along a row: they still agree.",
    "phase_histogram": "a flat outline: phases point everywhere. A peak: they agree.",
    "harmonic_amplitudes": "on the dashed line the harmonics have their initial strength, 1/n.",
    "packets": "the sum of one token's waves; tokens with like curves are alike to the model.",
    "interference": "a row is a token that looks, a cell what it makes of an earlier one; dark: it counts more.",
    "by_lag": "how much a token counts by its distance; a wave in the curve comes from the positions' frequencies.",
    "attention": "the share of attention by distance; what the untrained model has too was not learned.",
    "fringes": "what is left of attention by distance without its trend; regular waves are fringes.",
    "temperature": "a cell is a head; above 1 its attention is sharper than at the start, below 1 flatter.",
    "growth": "above 0 a layer makes small changes larger, below 0 smaller.",
    "spectrum": "the slower a curve falls, the more directions are used.",
    "anneal": "1: the table alone, 0: the waves alone.",
}


def _learning(found: Found) -> Chart | None:
    run = found["run"]
    if not run["series"]:
        return None
    series, tokens = run["series"], run["tokens_per_step"]

    def line(key: str, name: str, colour: str) -> Line:
        return Line([(step * tokens / 1e6, value) for step, value in series[key]], name, colour)

    named = {"train/loss": ("training", "@grey"), "val/loss": ("validation", "@blue")}
    views = {"nats a token": [line(key, *how) for key, how in named.items() if key in series]}
    bits = {
        "val/bits_per_byte": ("validation", "@blue"),
        "val/bits_per_byte_annealed": ("at the annealing's end", "@vermilion"),
    }
    views["bits per byte"] = [line(key, *how) for key, how in bits.items() if key in series]
    views = {label: marks for label, marks in views.items() if marks}
    last = series["val/bits_per_byte"][-1][1] if "val/bits_per_byte" in series else None
    title = f"Learning curve: {number(last, 3)} bits per byte at the end"
    return Chart("learning", title, views, Axis("loss"), Axis("million tokens"))


def _omega(found: Found, arrays: Arrays) -> Chart | None:
    if "omega" not in arrays:
        return None
    place = np.log10(arrays["ranks"] + 1)
    order = np.argsort(place)

    def points(values: np.ndarray[Any, Any]) -> list[tuple[float, float]]:
        return [(float(place[i]), float(math.log10(values[i]))) for i in order]

    learned = "usage/omega/shift" in found["nulls"]
    marks: list[Mark] = [Line(points(arrays["omega_before"]), "the start", "@grey", 1.5, "dash", marker=0)]
    marks.append(Line(points(arrays["omega"]), "learned" if learned else "fixed", "@blue", 0, marker=3))
    mass = found["settings"]["embedding"]["mass"]
    shift = number(found["figures"].get("usage/omega/shift"), 3)
    title = f"ω by token rank, mass {mass}: " + (
        f"moved by {shift} of ln ω on average" if learned else "fixed, nothing is learned"
    )
    return Chart("omega", title, {"": marks}, Axis("log₁₀ ω̂", least=0.2), Axis("log₁₀ (frequency rank + 1)"))


def _phase(found: Found, arrays: Arrays) -> Chart | None:
    if "phase" not in arrays:
        return None
    rows = found["shown"]["phase_tokens"]
    phase = np.mod(arrays["phase"][[row["id"] for row in rows]] + math.pi, 2 * math.pi) - math.pi
    cells = [[float(value) for value in row] for row in phase]
    names = [f"{row['rank']}  {plain(row['text'])}" for row in rows]
    heat = Heat(cells, "φ, rad", range(phase.shape[1]), numbers=False)
    moved = number(found["figures"]["usage/phase/shift"], 3)
    title = f"Phases φ of tokens by frequency rank: moved by {moved} rad on average"
    return Chart(
        "phase", title, {"": [heat]}, Axis("token, rank first", names), Axis("wave, from the shortest time on")
    )


def _phase_histogram(found: Found, arrays: Arrays) -> Chart | None:
    if "phase" not in arrays:
        return None
    density, middles = phase_density(arrays)
    figures, before = found["figures"], found["nulls"]["usage/phase/length"]["mean"]
    points = list(zip(middles.tolist(), density.tolist(), strict=True))
    marks: list[Mark] = [Level(1 / (2 * math.pi), "uniform", "@grey")]
    marks.append(Line(points, "φ", "@blue", marker=0, steps=True, fill=True))
    title = (
        f"All phases, the circle unrolled: Rayleigh R̄ {number(figures['usage/phase/length'], 3)} "
        f"(untrained {number(before, 3)}), p {number(figures['usage/phase/p'], 3)}"
    )
    return Chart("phase_histogram", title, {"": marks}, Axis("density"), Axis("φ, rad"), _START)


_START = (
    "Phases that start at 0 stay near it, which no test of uniformity tells from structure: compare with untrained."
)


def phase_density(arrays: Arrays, bins: int = 36) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Density of φ in bins of the circle, and the bins' middles."""
    edges = np.linspace(-math.pi, math.pi, bins + 1)
    turned = np.mod(arrays["phase"].ravel() + math.pi, 2 * math.pi) - math.pi
    return np.histogram(turned, edges, density=True)[0], (edges[:-1] + edges[1:]) / 2


def _harmonic_amplitudes(found: Found, arrays: Arrays) -> Chart | None:
    if "harmonic_amplitudes" not in arrays:
        return None
    learned = arrays["harmonic_amplitudes"]
    n = range(1, len(learned) + 1)
    marks = [
        Line([(k, 1 / k) for k in n], "1/n, the start", "@grey", 1.5, "dash"),
        Line([(k, float(a)) for k, a in zip(n, learned, strict=True)], "learned", "@blue"),
    ]
    title = f"Harmonic amplitudes: {number(found['figures']['usage/harmonics/divergence'])} nats from 1/n"
    return Chart("harmonic_amplitudes", title, {"": marks}, Axis("a_n", least=0.2), Axis("harmonic n", whole=True))


def _packets(found: Found, arrays: Arrays) -> Chart | None:
    if "packets" not in arrays:
        return None
    times, views = arrays["packet_times"], {}
    for row, (name, about) in zip(arrays["packets"], found["shown"]["packets"].items(), strict=True):
        points = list(zip(times.tolist(), row.tolist(), strict=True))
        label = f"{name}: “{plain(about['text'])}”, ω {number(about['omega'], 2)}"
        views[label] = [Line(points, "", _PACKETS[name], 1.5, marker=0)]
    step, limit = float(times[1] - times[0]), found["shown"]["packet_limit"]
    title = f"Wave packets of tokens: Δτ {number(step, 3)}, Nyquist's limit {number(limit, 3)}"
    return Chart("packets", title, views, Axis("mean over waves"), Axis("observation time τ"))


def _interference(found: Found, arrays: Arrays) -> Chart | None:
    layer, tokens = found["settings"]["layer"], found["shown"]["sentence"]
    scores = arrays["scores"][layer]
    K = scores.shape[-1]
    later = np.triu(np.ones((K, K), dtype=bool), 1)
    views: dict[str, Sequence[Mark]] = {}
    for head, one in enumerate(scores[:8]):
        shown = np.where(later, one[~later].min(), one)
        views[f"head {head}"] = [Heat([[float(v) for v in row] for row in shown], "I_tk", range(K), numbers=False)]
    what = found["shown"]["score"]
    title = f"{what[0].upper()}{what[1:]} of a sentence, layer {layer}"
    names = [f"{plain(text)}  {i}" for i, text in enumerate(tokens)]
    note = "Later keys, which a query does not see, have the darkest colour."
    return Chart("interference", title, views, Axis("query", names), Axis("key", whole=True), note)


def _by_lag(found: Found, arrays: Arrays) -> Chart | None:
    views: dict[str, Sequence[Mark]] = {}
    for layer, heads in enumerate(arrays["intensity"][:8]):
        views[f"layer {layer}"] = [_profile(row, f"head {head}", _HEADS[head]) for head, row in enumerate(heads[:8])]
    what = found["shown"]["score"]
    return Chart("by_lag", f"Mean {what} by lag", views, Axis(what, least=0.01), Axis("lag, tokens"))


def _profile(values: np.ndarray[Any, Any], name: str, colour: str, dash: str = "solid", first: int = 1) -> Line:
    return Line([(lag, float(v)) for lag, v in enumerate(values, first)], name, colour, 1.5, dash, marker=0)


def _attention(arrays: Arrays) -> Chart:
    views: dict[str, Sequence[Mark]] = {}
    for layer in range(min(len(arrays["profile"]), 8)):
        views[f"layer {layer}"] = [
            _profile(arrays[f"{key}profile"][layer].mean(0), *how)
            for key, how in _MODELS.items()
            if f"{key}profile" in arrays and layer < len(arrays[f"{key}profile"])
        ]
    return Chart(
        "attention", "Mean attention by lag, mean over heads", views, Axis("weight", least=0.001), Axis("lag, tokens")
    )


def _fringes(found: Found, arrays: Arrays) -> Chart:
    """Of each layer, the head of the largest peak, beside the same head of the untrained and the largest of RoPE's."""
    views: dict[str, Sequence[Mark]] = {}
    least = 1.0
    for layer in range(min(len(arrays["residual"]), 8)):
        marks: list[Mark] = []
        heads = []
        for key, (label, colour, dash) in _MODELS.items():
            if f"{key}residual" not in arrays or layer >= len(arrays[f"{key}residual"]):
                continue
            prefix = key.replace("_", "/")
            peaks = [found["figures"][f"{prefix}fringes/layer_{layer:02d}/head_{head:02d}/peak"] or 0.0
                     for head in range(len(arrays[f"{key}residual"][layer]))]  # fmt: skip
            head = int(np.argmax(peaks))
            heads.append(head)
            values = arrays[f"{key}residual"][layer][head]
            size = float(np.sqrt((values**2).mean())) or 1.0
            marks.append(_profile(values / size, label, colour, dash))
        p = found["figures"][f"fringes/layer_{layer:02d}/head_{heads[0]:02d}/p"]
        least = min(least, p)
        views[f"layer {layer}, head {heads[0]}: p {number(p, 3)}"] = marks
    title = "Fringes: attention by lag without its smooth trend, the head of the largest peak"
    return Chart("fringes", title, views, Axis("residual over its rms"), Axis("lag, tokens"))


def _temperature(arrays: Arrays) -> Chart | None:
    if "temperature" not in arrays:
        return None
    cells = [[float(value) for value in row] for row in arrays["temperature"]]
    names = [f"layer {layer}" for layer in range(len(cells))]
    heads = [f"head {head}" for head in range(len(cells[0]))]
    low, high = min(map(min, cells)), max(map(max, cells))
    title = f"Temperature by head and layer: {number(low, 3)} to {number(high, 3)}, 1 at the start"
    return Chart(
        "temperature", title, {"": [Heat(cells, "e^log_temperature")]}, Axis("", names, least=0.01), Axis("", heads)
    )


def _growth(found: Found, arrays: Arrays) -> Chart:
    marks: list[Mark] = [Level(0.0, "neither grows nor shrinks", "@grey", "solid")]
    for key, (label, colour, dash) in _MODELS.items():
        if f"{key}growth" in arrays:
            mean = arrays[f"{key}growth"].mean((1, 2))
            marks.append(
                Line([(-1, 0.0), *((layer, float(v)) for layer, v in enumerate(mean))], label, colour, 2.0, dash)
            )
    figures = found["figures"]
    title = f"Growth of a small change: exponent {number(figures['stability/exponent'], 3, True)} nats a layer"
    note = "−1 is the embedded tokens."
    return Chart("growth", title, {"": marks}, Axis("ln ‖Jv‖ / ‖v‖", least=0.1), LAYERS, note)


def _spectrum(found: Found, arrays: Arrays) -> Chart:
    views: dict[str, Sequence[Mark]] = {}
    names = {"state": "wave state", "rows": "embedded vocabulary"}
    for name, label in names.items():
        if f"singular_{name}" in arrays:
            lines = []
            for end, (what, colour, dash) in zip(("", "_untrained"), _MODELS.values(), strict=False):
                values = arrays[f"singular_{name}{end}"]
                top = values.max()
                points = [(float(i), float(np.log10(v / top))) for i, v in enumerate(values, 1) if v > 1e-6 * top]
                lines.append(Line(points, what, colour, 1.5, dash, marker=0))
            pr = number(found["figures"][f"usage/{name}/participation_ratio"], 1)
            views[f"{label}: participation ratio {pr}"] = lines
    return Chart(
        "spectrum",
        "Singular spectra over the vocabulary",
        views,
        Axis("log₁₀ σ / σ₁", least=0.5),
        Axis("direction", whole=True),
    )


def _anneal(found: Found) -> Chart | None:
    about = found["run"]["anneal"]
    if not about:
        return None
    marks: list[Mark] = [Line(about["function"], "by its configuration", "@grey", 1.5, "dash", marker=0)]
    if about["logged"]:
        marks.append(Line(about["logged"], "logged", "@blue", 0, marker=4))
    return Chart(
        "anneal",
        "Annealing: r, the table's share, by step",
        {"": marks},
        Axis("r", least=0.2),
        Axis("training step", whole=True),
    )


def plain(text: str) -> str:
    r"""A token's text for a figure: two dollars would be a formula.

    >>> plain("$1"), plain("$$")
    ('$1', '\\$\\$')
    """
    return text if text.count("$") < 2 else text.replace("$", r"\$")


def heads_of(found: Found, prefix: str = "") -> list[tuple[int, int]]:
    """(layer, head) whose fringes were measured."""
    matches = (re.fullmatch(rf"{prefix}fringes/layer_(\d+)/head_(\d+)/p", name) for name in found["figures"])
    return [(int(m[1]), int(m[2])) for m in matches if m]
