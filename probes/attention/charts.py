"""Charts of attention: what its report shows, and a paper would take."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from modulant.reports.drawing.chart import COLOURS, LAYERS, Axis, Band, Chart, Heat, Level, Line, Mark
from modulant.reports.wording import number, with_interval

Found = Mapping[str, Any]

CLOUDS = {
    "": ("the model", "@blue", "solid"),
    "original/": ("original", "@ink", "dash"),
    "modulated/": ("modulated", "@blue", "solid"),
}
STACKS = {"": "", "decoder": "decoder", "cross": "cross-attention"}
_ENTROPIES = {"entropy": "with the sink", "entropy_without_sink": "without the sink"}
_POSITIONS = {"distance": "distance, of the farthest key", "spread": "sd of positions, of the range of keys"}
_SOURCE = {"head_sync": "synchrony of heads", "coherence": "coherence"}
_NAMES = {
    "entropy": "entropy, all queries",
    "coherence": "coherence",
    "head_sync": "head synchrony",
    "sink": "sink",
    "entropy_last": "entropy, last query",
    "entropy_without_sink_last": "entropy without the sink, last query",
    "sink_last": "sink, last query",
    "distance_last": "distance, last query",
    "head_divergence_last": "divergence, last query",
}


def charts(found: Found) -> list[Chart]:
    """Those whose figures were measured."""
    curves = found["curves"]
    made: list[Chart | None] = []
    for stack in STACKS:
        here = {cloud: curves[cloud + stack] for cloud in CLOUDS if cloud + stack in curves}
        if here and "layers" in found["settings"]["only"]:
            made += [_entropies(found, stack, here), _positions(found, stack, here), _heads(stack, here)]
            made.append(_source(found, stack, here))
    made += [_text(found), *_lens(found), _scatter(found), _confidence(found)]
    return [chart for chart in made if chart is not None and chart.values]


def _name(chart: str, stack: str) -> str:
    return f"{chart}_{stack}" if stack else chart


def _titled(title: str, stack: str) -> str:
    return f"{STACKS[stack].capitalize()}: {title[0].lower()}{title[1:]}" if stack else title


def _line(found: Found, name: str, layers: Sequence[int], *style: str) -> Line:
    """A figure by layer; `name` has a place for the layer."""
    values = [found["figures"].get(name % layer) for layer in layers]
    points = [(float(layer), math.nan if value is None else value) for layer, value in zip(layers, values, strict=True)]
    label, colour, dash = style
    return Line(points, label, colour, dash=dash)


def _entropies(found: Found, stack: str, curves: Mapping[str, Any]) -> Chart:
    at = f"{stack}/layer_%02d" if stack else "layer_%02d"
    views: dict[str, list[Mark]] = {}
    for key, label in _ENTROPIES.items():
        marks: list[Mark] = [Level(1.0, "uniform attention", "@grey", "dot")]
        for cloud, curve in curves.items():
            ends = zip(curve["layers"], curve[key]["low"], curve[key]["high"], strict=True)
            band = [(float(x), _or_nan(low), _or_nan(high)) for x, low, high in ends]
            marks.append(Band(band, "", CLOUDS[cloud][1]))
        marks += [_line(found, f"{cloud}{at}/{key}", curves[cloud]["layers"], *CLOUDS[cloud]) for cloud in curves]
        if not stack:
            sinks = [_line(found, f"{c}{at}/sink", curves[c]["layers"], "", "@vermilion", CLOUDS[c][2]) for c in curves]
            named = [Line(s.points, "sink", s.colour, dash=s.dash) if i == 0 else s for i, s in enumerate(sinks)]
            marks += named if key == "entropy" else []
        views[label] = marks
    many = found["settings"]["texts"] > 1
    title = _titled(f"Entropy of attention by layer{'; bands: 5 to 95% of texts' if many else ''}", stack)
    r = found["figures"].get("sink/entropy_r")
    if r is not None and not stack:
        title += f"; r with the sink {number(r, 2, True)}"
    y, reading = Axis("share of the maximum"), "at 1 a token attends to all others alike, near 0 to a single one."
    return Chart(_name("entropy", stack), title, views, y, LAYERS, reading=reading)


def _positions(found: Found, stack: str, curves: Mapping[str, Any]) -> Chart:
    """Where attention looks, and over how wide a range."""
    at = f"{stack}/layer_%02d" if stack else "layer_%02d"
    views = {}
    for key, label in _POSITIONS.items():
        marks: list[Mark] = []
        for cloud, curve in curves.items():
            names = [f"{cloud}{at}/{key}" % layer for layer in curve["layers"]]
            nulls = [found["nulls"].get(name, {}).get("mean", math.nan) for name in names]
            marks.append(_band(found, curve["layers"], names, CLOUDS[cloud][1]))
            marks.append(_line(found, f"{cloud}{at}/{key}", curve["layers"], *CLOUDS[cloud]))
        even = [(float(x), y) for x, y in zip(curve["layers"], nulls, strict=True)]
        marks.append(Line(even, "uniform attention", "@grey", dash="dot", marker=0))
        views[label] = marks
    title = _titled(f"Positions that are looked at{_bands(found)}", stack)
    reading = "where the model's line leaves the dotted one, it looks elsewhere than even attention would."
    return Chart(_name("positions", stack), title, views, Axis("share", least=0.05), LAYERS, reading=reading)


def _band(found: Found, x: Sequence[int], names: Sequence[str], colour: str) -> Band:
    """Intervals over texts of figures by layer."""
    ends = [found["intervals"].get(name, (math.nan, math.nan)) for name in names]
    return Band([(float(x), low, high) for x, (low, high) in zip(x, ends, strict=True)], "", colour)


def _bands(found: Found) -> str:
    return "; bands: 95% over texts" if found["intervals"] else ""


def _heads(stack: str, curves: Mapping[str, Any]) -> Chart:
    views = {}
    for cloud, curve in curves.items():
        named = f"{CLOUDS[cloud][0]}: " if cloud else ""
        for key, label in (("sink", "sink"), ("head_divergence", "divergence")):
            cells = [[_or_nan(value) for value in row] for row in curve["heads"][key]]
            if all(math.isfinite(value) for row in cells for value in row):
                views[named + label] = [Heat(cells, label, range(len(cells[0])), numbers=False)]
    layers = [str(layer) for layer in next(iter(curves.values()))["layers"]]
    sink = "weight on the end of the text" if stack == "cross" else "weight on the first token"
    title = _titled(f"Every head: {sink}, and divergence from the others", stack)
    y, reading = Axis("layer", layers), "a cell is one head; the lighter, the larger the chosen figure."
    return Chart(_name("heads", stack), title, views, y, Axis("head", whole=True), reading=reading)


def _source(found: Found, stack: str, curves: Mapping[str, Any]) -> Chart | None:
    """Figures as published, beside what has no meaning."""
    if stack == "cross":
        return None
    at = f"source/{stack}/layer_%02d" if stack else "source/layer_%02d"
    views = {}
    for key, label in _SOURCE.items():
        marks = [_line(found, f"{cloud}{at}/{key}", curves[cloud]["layers"], *CLOUDS[cloud]) for cloud in curves]
        cloud, curve = list(curves.items())[-1]
        nulls = [found["nulls"].get(f"{cloud}{at}/{key}" % layer) for layer in curve["layers"]]
        if all(nulls):
            even = [(float(x), null["mean"]) for x, null in zip(curve["layers"], nulls, strict=True) if null]
            marks.append(Line(even, "uniform attention", "@grey", dash="dot", marker=0))
        if "permuted" in curve:
            dealt = [(float(x), _or_nan(y)) for x, y in zip(curve["layers"], curve["permuted"][key], strict=True)]
            marks.append(Line(dealt, "its keys permuted", "@orange", dash="dash", marker=0))
        views[label] = marks
    title = _titled("As published: positions on a circle, beside attention that says nothing", stack)
    y = Axis("length of the mean direction")
    reading = "where the model's line runs like those of uniform or permuted attention, this figure says nothing of it."
    return Chart(_name("source", stack), title, views, y, LAYERS, reading=reading)


def _text(found: Found) -> Chart | None:
    shown = found["curves"].get("text")
    if shown is None:
        return None
    sink, tokens = shown["sink"], shown["tokens"]
    x = [f"▼{i}" if i == sink else str(i) for i in range(len(tokens))]
    y = [f"{i} {token}" for i, token in enumerate(tokens)]
    views = {
        f"layer {layer}": [Heat(cells, "weight", numbers=False)]
        for layer, cells in zip(shown["layers"], shown["weights"], strict=True)
    }
    title = f"Attention, mean of heads; ▼ the sink: {tokens[sink]!r}, {number(shown['share'], 2)} of all weight"
    reading = "each row is a word of the text; its light cells are the words that it attends to."
    return Chart("text", title, views, Axis("query", y), Axis("key", x), reading=reading)


def _lens(found: Found) -> list[Chart]:
    """The embeddings, whose own token the head finds again, are far from all that follows: KL is shown from layer 0."""
    lens = found["curves"].get("lens")
    if lens is None:
        return []
    stack = stack_of_lens(found)

    def lines(key: str, start: int) -> list[Mark]:
        made: list[Mark] = []
        for cloud, curve in lens["clouds"].items():
            label, colour, dash = CLOUDS.get(cloud, ("words shuffled", "@grey", "dot"))
            points = [(float(x), y) for x, y in zip(lens["after"], curve[key], strict=True)]
            if cloud in CLOUDS:
                names = [f"{cloud}{stack}{place_of(x)}/lens_{key}" for x in lens["after"]]
                made.append(_band(found, lens["after"][start:], names[start:], colour))
            made.append(Line(points[start:], label, colour, dash=dash))
        return made

    cloud = next(cloud for cloud in reversed(CLOUDS) if cloud in lens["clouds"])
    commit = f"{number(found['figures'][f'{cloud}lens/commit_layer'], 1)} of {lens['after'][-1]} layers"
    x = Axis("layers done", whole=True)
    title = f"What the head makes of each layer: entropy; settled after {commit}"
    apart = "What the head makes of each layer: how far the last one is from it"
    unigram = "What the head makes of each layer: how far it is from token frequencies"
    sure = "the lower, the surer the model would be of the token if it stopped at this layer."
    near = "at 0 this layer would already give the model's final answer."
    plain = "at 0 this layer would guess by how common tokens are, whatever the text."
    y = Axis("entropy of the predicted token, nat")
    return [
        Chart("lens", title, {"": lines("entropy", 0)}, y, x, reading=sure),
        Chart("lens_divergence", apart, {"": lines("divergence", 1)}, Axis("KL(last ‖ layer), nat"), x, reading=near),
        Chart("lens_unigram", unigram, {"": lines("unigram", 1)}, Axis("KL(layer ‖ unigram), nat"), x, reading=plain),
    ]


def place_of(after: int) -> str:
    """``embedded``, or the layer after which the stream is looked at."""
    return f"layer_{after - 1:02d}" if after else "embedded"


def stack_of_lens(found: Found) -> str:
    """Whose stream it is: ``decoder/`` of a T5."""
    return "decoder/" if any(name.endswith("decoder") for name in found["curves"]) else ""


def _scatter(found: Found) -> Chart | None:
    """Published coherence against confidence: few prompts beside many texts."""
    views, said = {}, []
    cloud = "modulated/" if "modulated/confidence" in found["confidence"] else ""
    for key, colour in ((f"{cloud}confidence_15", "@vermilion"), (f"{cloud}confidence", "@blue")):
        if curve := found["confidence"].get(key):
            points = list(zip(curve["points"]["coherence"], curve["points"]["confidence"], strict=True))
            label = f"{len(points)} {'prompts' if key.endswith('15') else 'texts'}"
            name = f"{key}/coherence/r"
            said.append(f"{number(found['figures'][name], 2, True)} of {label}")
            r = with_interval(found["figures"][name], found["intervals"].get(name), 2)
            views[f"{label}: r {r}"] = [Line(sorted(points), label, colour, width=0, marker=7, opacity=0.7)]
    if not views:
        return None
    title = f"Coherence as published against confidence: r {', '.join(said)}"
    y, x = Axis("−H of the predicted token, nat"), Axis("coherence in the last layer")
    reading = "a point is a text, higher where the model is surer; a shapeless cloud means no relation."
    return Chart("scatter", title, views, y, x, reading=reading)


def _confidence(found: Found) -> Chart | None:
    views: dict[str, list[Mark]] = {}
    cloud = "modulated/" if "modulated/confidence" in found["confidence"] else ""
    for key, label in (("confidence_15", "15 prompts"), ("confidence", "texts"), ("confidence_shuffled", "shuffled")):
        curve = found["confidence"].get(cloud + key)
        if curve is None or len(curve["layers"]) < 2:
            continue
        limit = curve["threshold"]
        marks: list[Mark] = [Level(0.0, "5% of permutations reach beyond the band", "@grey", "dot", limit)]
        for i, (figure, values) in enumerate(curve["partial_r"].items()):
            points = [(float(x), _or_nan(y)) for x, y in zip(curve["layers"], values, strict=True)]
            dash = "dash" if i >= len(COLOURS) else "solid"
            marks.append(Line(points, _NAMES[figure], COLOURS[i % len(COLOURS)], 1.5, dash, marker=0))
        views[label] = marks
    title = "Attention against confidence, given length: every layer and figure"
    reading = "a line that stays in the grey band goes with confidence no more than chance does."
    return Chart("confidence", title, views, Axis("partial r"), LAYERS, reading=reading) if views else None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
