"""The charts of a run, from what it logged and measured."""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from modulant.reports.drawing.chart import Axis, Bars, Chart, Heat, Level, Line, Mark
from modulant.reports.drawing.figures import draw as draw_figure
from modulant.reports.drawing.interactive import MOST_OPEN
from modulant.reports.drawing.plotting import save
from modulant.reports.populations import population_names
from modulant.reports.run import parts_of_text
from modulant.reports.run.inside import inside, moved_tokens
from modulant.reports.run.rows import Report, at_step, before_and_after
from modulant.reports.series import Series, finite_points, history_of, known, smoothed
from modulant.reports.wording import change, counted, number

Metrics = Mapping[str, Series]

# Figure in figures/ → its title, and the charts in it.
FIGURES = {
    "bits_per_byte": ("Bits per byte of held-out text", ["bits_per_byte"]),
    "loss": ("Loss", ["loss", "objective"]),
    "loss_by_part": ("Loss by token frequency and by position", ["by_frequency", "by_position"]),
    "inside": ("Inside the modulator, over steps", ["inside_layers", "inside_experts"]),
    "alpha": ("α per layer over steps", ["alpha"]),
    "alpha_final": ("Final α by layer and expert", ["alpha_final"]),
    "relational": ("Correlation with WordNet, and its lift", ["correlation", "lift"]),
    "bands": ("Mean cosine by similarity band", ["bands"]),
    "pentachoron": ("CV of pentachoron volumes", ["cv", "volumes"]),
}
# What a page shows first, as far as it is there; the rest it folds.
_FIRST = ("controls", "bits_per_byte", "lift", "bands", "loss", "alpha", "cv")
# Chart → how to read it, in one line for who has never seen such a chart.
READING = {
    "bits_per_byte": "lower is better. It is what a byte of text costs that the model was not trained on; below a "
    "compressor's line it predicts the text better than that compressor packs it.",
    "lift": "above 0 the encoder follows WordNet more than before training. Look first at pairs that training has not "
    "seen (held-out, or test).",
    "correlation": "how near the encoder puts what WordNet puts near: 1 always, 0 no more than chance. Broken lines "
    "are encoders that this training did not touch.",
    "bands": "pairs of near meanings are on the left, of far ones on the right. The steeper the fall from left to "
    "right, the better the encoder tells them apart.",
    "loss": "lower is better. Validation is text that was not trained on; where it rises while training falls, the "
    "model only memorises.",
    "by_frequency": "common tokens are left, rare ones right. Below the dotted line the model knows more than how "
    "often tokens are.",
    "by_position": "the more tokens a prediction is made from, the lower it should be; where it stops falling, more "
    "context does not help.",
    "objective": "what training makes small, all its terms together. Its fall means something, its height does not.",
    "alpha": "a line is a layer of the backbone. The higher it is, the more the modulator adds to that layer; at 0 it "
    "adds nothing.",
    "alpha_final": "what the modulator adds to each layer at the end: the larger the number, the more.",
    "inside_layers": "a row is a layer, and time goes to the right. The lighter a cell, the larger the figure.",
    "inside_experts": "a row is a layer and one of its experts, and time goes to the right. The lighter a cell, the "
    "larger the figure.",
    "cv": "how unequal the volumes of random five-point shapes are. A line that leaves the green band says that "
    "training deforms the space.",
    "volumes": "the wider a curve, the more unequal the shapes. Where modulated and original agree, nothing was "
    "deformed.",
    "moved": "a column is a token of the text, a row a layer. The lighter a cell, the further the modulator moves that "
    "token there.",
}
_KINDS = {"pearson": "Pearson", "spearman": "Spearman"}
_COLOURS = {"train": "@blue", "mixed": "@green", "held_out": "@vermilion", "validation": "@purple"}
_BASELINES = {
    "original": ("original encoder", "@ink", "dash"),
    "static": ("static embeddings", "@grey", "dot"),
    "random": ("randomly initialised encoder", "@grey", "dashdot"),
}
_WITHOUT = {
    "uniform": ("each token alike", "@ink", "dash"),
    "unigram": ("by token frequency alone", "@ink", "dot"),
    "xz": ("xz", "@grey", "dashdot"),
    "bz2": ("bz2", "@grey", "dot"),
}
_CLOUDS = {
    "original": Line((), "original encoder", "@ink", marker=0, steps=True),
    "modulated": Line((), "modulated encoder", "@blue", marker=0, steps=True, opacity=0.9, fill=True),
    "null": Line((), "Gaussian null", "@purple", marker=0, steps=True, dash="dot"),
}
_ALPHA = re.compile(r"alpha/layer_(\d+)(?:_(\w+))?")
_BAND = re.compile(r"band/([\d.]+)_([\d.]+)")
_MOVED = re.compile(r"(?<=^moved)_\d+$")


def draw(report: Report, metrics: Metrics, folder: Path, suffix: str = "") -> dict[str, str]:
    """Draw the charts into `folder/figures`; figure → path as seen from `folder`."""
    found = charts(report, metrics)
    paths = {}
    for name, (_, parts) in FIGURES.items():
        if shown := [found[part] for part in parts if part in found]:
            path = save(draw_figure(shown), folder / "figures" / f"{name}{suffix}.png")
            paths[name] = path.relative_to(folder).as_posix()
    return paths


def charts(report: Report, metrics: Metrics) -> dict[str, Chart]:
    """The charts for which there are figures, by name."""
    over_time = metrics if report["run"]["stage"] == "fit" else {}
    relational, pentachoron = report["relational"], report["pentachoron"]
    validated, checked = over_time.get("val/loss"), (_last_check(relational), _last_check(pentachoron))
    found = [
        (alpha_over_steps(report["alpha"], over_time), None),
        (final_alpha(report["alpha"]), None),
        *((chart, None) for chart in inside(over_time)),
        # Lightning logs under the number of the last batch, from 0; so is what is measured before the first.
        (loss(over_time), validated[-1][0] + (validated[-1][0] > 0) if validated else None),
        (objective(over_time), None),
        (bits_per_byte(report, over_time), None),
        *parts_of_text.charts(report),
        (correlation(relational), checked[0]),
        (lift(relational), checked[0]),
        (bands(relational), checked[0]),
        (pentachoron_cv(pentachoron), checked[1]),
        (volumes(pentachoron), checked[1]),
        *((chart, None) for chart in moved_tokens(report.get("texts") or [])),
    ]
    return {
        chart.name: replace(
            chart, title=chart.title + at_step(report, step), reading=READING[_MOVED.sub("", chart.name)]
        )
        for chart, step in found
        if chart is not None
    }


def shown_first(names: Collection[str]) -> list[str]:
    """Those of some charts that a page shows first, in this order; a few, so that it is read.

    >>> shown_first(["alpha", "volumes", "lift"])
    ['lift', 'alpha']
    """
    return [name for name in _FIRST if name in names][:MOST_OPEN]


def figures_first(figures: Collection[str]) -> list[str]:
    """The same of the files in figures/, each of which may hold several charts.

    >>> figures_first(["alpha", "relational", "inside"])
    ['relational', 'alpha']
    """
    holding = {chart: figure for figure, (_, parts) in FIGURES.items() for chart in parts}
    return [holding[chart] for chart in shown_first([c for c in holding if holding[c] in figures])]


def reading_of(figure: str) -> str:
    """How to read a file in figures/: its chart that a page shows first, or else its first."""
    parts = FIGURES[figure][1]
    return READING[next(iter(shown_first(parts)), parts[0])]


def _last_check(section: Mapping[str, Any]) -> int | None:
    history = section.get("history")
    return int(history[-1]["step"]) if history else None


def alpha_over_steps(alpha: Mapping[str, Any], metrics: Metrics) -> Chart | None:
    """α of each layer over steps: the mean over experts and, of several, each expert's."""
    mean: dict[int, Series] = {}
    experts: dict[str, dict[int, Series]] = {name: {} for name in alpha["experts"]}
    for key, series in metrics.items():
        if (match := _ALPHA.fullmatch(key)) and (points := finite_points(series)):
            layer, expert = int(match[1]), match[2]
            (mean if expert is None else experts.setdefault(expert, {}))[layer] = points
    if not mean:
        return None
    views = {"": mean}
    if len(named := {f"expert {name}": by_layer for name, by_layer in experts.items() if by_layer}) > 1:
        views = {"mean over experts": mean, **named}
    layers = sorted(mean)
    marks = {
        view: [
            Line(by_layer[layer], f"layer {layer}", f"@depth{len(layers)}_{place}")
            for place, layer in enumerate(layers)
            if layer in by_layer
        ]
        for view, by_layer in views.items()
    }
    note = "A click on a layer's name hides or shows it, a double click shows it alone."
    return Chart("alpha", _alpha_title(mean), marks, Axis("injection strength α", least=0.002), note=note)


def _alpha_title(mean: Mapping[int, Series]) -> str:
    first, last = (sum(series[end][1] for series in mean.values()) / len(mean) for end in (0, -1))
    what = f"Mean α of {counted(len(mean), 'layer')}"
    if all(len(series) == 1 for series in mean.values()):
        return f"{what}: {last:.4f}"
    verb = f"{'rose' if last > first else 'fell'} from {first:.4f} to"
    return f"{what} {'stayed at' if f'{first:.4f}' == f'{last:.4f}' else verb} {last:.4f}"


def final_alpha(alpha: Mapping[str, Any]) -> Chart | None:
    """α at the end: numbers on colour for layer × expert, bars where there is one expert."""
    final, experts = alpha.get("final"), alpha["experts"]
    if not final or not all(known(value) for row in final for value in row):
        return None
    flat = [value for row in final for value in row]
    layers = [str(layer) for layer in alpha["layers"]]
    title = f"Final α: {min(flat):.4f} to {max(flat):.4f}"
    starts = {value for row in alpha.get("initial") or [] for value in row}
    # said once only where all started at one value
    start = starts.pop() if starts and None not in starts and max(starts) - min(starts) < 1e-9 else None
    if start is not None:
        title += f" (started at {start:.4g})"
    if len(experts) > 1:
        x, y = Axis("expert", experts), Axis("layer", layers, least=0.002)
        return Chart("alpha_final", title, {"": [Heat(final, "injection strength α")]}, y, x)
    bars = Bars([row[0] for row in final], [f"@depth{len(layers)}_{place}" for place in range(len(layers))])
    marks: list[Mark] = [Level(start, "start", "@ink"), bars] if start is not None else [bars]
    return Chart("alpha_final", title, {"": marks}, Axis("injection strength α"), Axis("layer", layers))


def loss(metrics: Metrics) -> Chart | None:
    """The task's loss in training and in validation; None where it was not needed. Unit: nats per token."""
    own = _logged(metrics) if not _has_terms(metrics) else metrics.get("train/task") or metrics.get("train/lemma") or []
    train, validation = finite_points(own), finite_points(metrics.get("val/loss") or [])
    if not train and not validation:
        return None
    marks = _training(train)
    if validation:
        marks.append(Line(validation, "validation", "@vermilion", marker=6))
    shown, name = (validation, "validation") if validation else (train, "training")
    title = change(f"{name} loss", shown[0][1] if len(shown) > 1 else None, shown[-1][1], 3)
    return Chart("loss", title, {"": marks}, Axis("cross-entropy (nats per token)", least=0.05))


def bits_per_byte(report: Report, metrics: Metrics) -> Chart | None:
    """Bits per byte of the validation text over steps, beside what it costs without a model."""
    points = finite_points(metrics.get("val/bits_per_byte") or [])
    if not points:
        return None
    without = report["model"]["describe"].get("references") or {}
    marks: list[Mark] = [Level(without[key], *style) for key, style in _WITHOUT.items() if known(without.get(key))]
    marks.append(Line(points, "this model", "@vermilion", 2.5, marker=6))
    if annealed := finite_points(metrics.get("val/bits_per_byte_annealed") or []):
        marks.append(Line(annealed, "at the annealing's end", "@purple", marker=6))
    title = change("bits per byte", points[0][1] if len(points) > 1 else None, points[-1][1], 3)
    return Chart("bits_per_byte", title, {"": marks}, Axis("bits per byte of held-out text", least=0.05))


def objective(metrics: Metrics) -> Chart | None:
    """What training minimised, where that is a sum of several terms; None where it was the task's loss alone."""
    train = finite_points(_logged(metrics))
    if not train or not _has_terms(metrics):
        return None
    title = change("objective", train[0][1] if len(train) > 1 else None, train[-1][1], 3)
    return Chart("objective", title, {"": _training(train)}, Axis("sum of weighted terms", least=0.05))


def _logged(metrics: Metrics) -> Series:
    return metrics.get("train/loss_step") or metrics.get("train/loss") or []


def _has_terms(metrics: Metrics) -> bool:
    """Whether the training loss is a sum of terms, which are logged too."""
    return any(key.startswith("train/") and not key.startswith("train/loss") for key in metrics)


def _training(points: Series) -> list[Mark]:
    """A series as logged, and of a long one an exponential average over a 25th of the run."""
    if len(points) <= 50:
        return [Line(points, "training", "@blue")] if points else []
    steps, values = zip(*points, strict=True)
    smooth = list(zip(steps, smoothed(values, len(points) / 25), strict=True))
    return [
        Line(points, "training, as logged", "@blue", 1, opacity=0.35, marker=0),
        Line(smooth, "training, smoothed", "@blue", marker=0),
    ]


def correlation(relational: Mapping[str, Any]) -> Chart | None:
    """Correlation with WordNet over steps, beside what it is without training."""
    baseline = relational.get("baseline") or {}
    views: dict[str, list[Mark]] = {}
    titles = []
    for kind, label in _KINDS.items():
        if points := history_of(relational, kind):
            views[label] = [
                Level(baseline[key][kind], *style)
                for key, style in _BASELINES.items()
                if known(baseline.get(key, {}).get(kind))
            ]
            views[label].append(Line(points, "modulated encoder", "@blue", 2.5))
            before = baseline.get("original", {}).get(kind)
            titles.append(change(f"{label} over all pairs", before, points[-1][1], 4))
    axis = Axis("correlation with path similarity", least=0.02)
    return Chart("correlation", titles[0], views, axis) if views else None


def lift(relational: Mapping[str, Any]) -> Chart | None:
    """Correlation minus the original encoder's, by population of pairs."""
    intervals = relational.get("interval") or {}
    views: dict[str, list[Mark]] = {}
    names = population_names(relational)
    title = "Lift of the correlation by population"
    for kind, label in _KINDS.items():
        for key, colour in _COLOURS.items():
            if points := history_of(relational, f"{key}/{kind}_lift"):
                marks = views.setdefault(label, [Level(0.0, "no lift", "@ink")])
                interval = intervals.get(key) if kind == "pearson" else None
                marks.append(Line(points, names[key], colour, interval=interval))
                if (key, kind) == ("held_out", "pearson"):
                    title = f"Lift of Pearson on {names[key].split()[0]} pairs: {number(points[-1][1], 4, signed=True)}"
    note = "The bars at the end are 95% intervals by a bootstrap over synsets; they are of Pearson alone."
    axis = Axis("modulated − original", least=0.002)
    return Chart("lift", title, views, axis, note=note if intervals else "") if views else None


def bands(relational: Mapping[str, Any]) -> Chart | None:
    """Mean cosine in each band of path similarity, from near to far, before and after."""
    before, after = before_and_after(relational)
    keys = [key for key in sorted(after, reverse=True) if _BAND.fullmatch(key)]
    keys = [key for key in keys if known(before.get(key)) and known(after[key])]
    if not keys:
        return None
    names = [_BAND.sub(r"\1–\2", key) for key in keys]
    pairs = [(before[key], after[key]) for key in keys]
    stems = [(place, y) for place, pair in enumerate(pairs) for y in (*pair, math.nan)]
    original, modulated = ([(place, pair[i]) for place, pair in enumerate(pairs)] for i in (0, 1))
    near, far = (number(after[key], 3) for key in (keys[0], keys[-1]))
    title = f"Mean cosine, modulated: {near} in the nearest band, {far} in the farthest"
    views: dict[str, list[Mark]] = {
        "both encoders": [
            Line(stems, "", "@grey", 1.5, marker=0),
            Line(original, "original encoder", "@ink", 0, marker=11, hollow=True),
            Line(modulated, "modulated encoder", "@blue", 0, marker=10),
        ],
        "modulated − original": [Bars([b - a for a, b in pairs], ["@blue"] * len(keys), 3, signed=True)],
    }
    return Chart("bands", title, views, Axis("mean cosine"), Axis("path similarity of the two synsets", names))


def pentachoron_cv(pentachoron: Mapping[str, Any]) -> Chart | None:
    """The CV over steps, with the reference ± tolerance that it should keep, and its Gaussian null."""
    cv = history_of(pentachoron, "cv")
    if not cv:
        return None
    last = pentachoron["history"][-1]
    reference, tolerance, null = last.get("reference"), pentachoron.get("tolerance"), last.get("null")
    title = f"CV of pentachoron volumes: {number(cv[-1][1])}"
    marks: list[Mark] = []
    if known(reference):
        name = pentachoron.get("reference")
        label = f"{name if isinstance(name, str) else 'reference'} {number(reference, 3)}"
        if tolerance is not None:
            label += f" ± {tolerance:g}"
            outside = [step for step, value in cv if abs(value - reference) > tolerance]
            title += f", left its band at step {outside[0]}" if outside else ", within its band throughout"
        marks.append(Level(reference, label, "@green", spread=tolerance or 0.0))
    if known(null):
        deviation = last.get("null_sd") or 0.0
        label = f"Gaussian null {number(null, 3)}" + " ± 2 sd" * (deviation > 0)
        marks.append(Level(null, label, "@purple", "dot", spread=2 * deviation))
    marks.append(Line(cv, "modulated encoder", "@blue", 2.5))
    z = history_of(pentachoron, "z")
    note = change("z-score against Gaussian points", z[0][1], z[-1][1], 1) + "." if z else ""
    return Chart("cv", title, {"": marks}, Axis("CV of volumes (sd / mean)", least=0.02), note=note)


def volumes(pentachoron: Mapping[str, Any]) -> Chart | None:
    """Histograms of volume ÷ mean volume, laid over each other."""
    found = pentachoron.get("volumes") or {}
    shown = {key: found[key] for key in _CLOUDS if found.get(key)}
    if not shown:
        return None
    width = float(found["bin_width"])
    used = max(place for shares in shown.values() for place, share in enumerate(shares) if share or not place)
    last = max(map(len, shown.values())) - 1
    places = range(min(used + 2, last + 1))
    marks = [
        replace(_CLOUDS[key], points=[((place + 0.5) * width, shares[place]) for place in places])
        for key, shares in shown.items()
    ]
    note = "The standard deviation of each of these is its CV."
    if len(places) > last:
        note += f" The last bin holds all from {number(last * width, 0)} on."
    y, x = Axis(f"share of draws (bins of {width:g})"), Axis("volume ÷ mean volume")
    return Chart("volumes", "Volumes of random pentachora, relative to their mean", {"": marks}, y, x, note)
