"""The charts of a report: finds the series in what was logged and measured, and hands them to `charts`."""

from collections.abc import Mapping, Sequence
from typing import Any

from modulant.reports.charts import Chart, Trace, ends_table, interval, level, line, over_steps, room, rounded
from modulant.reports.figures import alpha_title
from modulant.reports.pentachoron_charts import pentachoron_cv, volumes
from modulant.reports.plotting import change, smoothed
from modulant.reports.report_figures import REFERENCES, alpha_series, bands_of, finite_points, history_of
from modulant.reports.report_rows import POPULATIONS, Report
from modulant.reports.series import Series
from modulant.reports.wording import number

_COLOURS = {"train": "@blue", "mixed": "@orange", "held_out": "@vermilion"}
_KINDS = {"pearson": "Pearson", "spearman": "Spearman"}

Metrics = Mapping[str, Series]


def charts(report: Report, metrics: Metrics) -> dict[str, Chart]:
    """Those that there is something to show in, by name."""
    over_time = metrics if report["run"]["stage"] == "fit" else {}
    found = [
        _alpha(report["alpha"], over_time),
        _final(report["alpha"]),
        _loss(over_time),
        _correlation(report["relational"]),
        _lift(report["relational"]),
        _bands(report["relational"]),
        pentachoron_cv(report["pentachoron"]),
        volumes(report["pentachoron"]),
    ]
    return {chart.name: chart for chart in found if chart is not None}


def _alpha(alpha: Mapping[str, Any], metrics: Metrics) -> Chart | None:
    mean, experts = alpha_series(alpha, metrics)
    if not mean:
        return None
    layers = sorted(mean)
    views = {"mean over experts": mean} if len(experts) > 1 else {"": mean}
    views |= {f"expert {name}": by_layer for name, by_layer in experts.items()} if len(experts) > 1 else {}
    traces = {
        name: [
            line(by_layer[layer], f"layer {layer}", f"@depth{len(layers)}_{place}")
            for place, layer in enumerate(layers)
            if layer in by_layer
        ]
        for name, by_layer in views.items()
    }
    values = [value for by_layer in views.values() for series in by_layer.values() for _, value in series]
    named = {
        f"{name + ', ' if name else ''}layer {layer}": by_layer[layer]
        for name, by_layer in views.items()
        for layer in layers
        if layer in by_layer
    }
    return Chart(
        "alpha",
        alpha_title(mean),
        f"Line chart of injection strength alpha over training steps, one line for each of {len(layers)} layers. "
        f"{alpha_title(mean)}.",
        traces,
        over_steps("injection strength α", room(values, 0.002)),
        ends_table(named),
        "A click on a layer's name hides or shows it, a double click shows it alone.",
    )


def _final(alpha: Mapping[str, Any]) -> Chart | None:
    final, experts = alpha.get("final"), alpha["experts"]
    if not final or any(value is None for row in final for value in row):
        return None
    flat = [value for row in final for value in row]
    title = f"Final α: {min(flat):.4f} to {max(flat):.4f}"
    layers = [f"layer {layer}" for layer in alpha["layers"]]
    if len(experts) > 1:
        blank = max(0.0, 0.002 - (max(flat) - min(flat))) / 2  # equal values get one colour, not the whole palette
        trace: Trace = {
            "type": "heatmap",
            "x": [f"expert {name}" for name in experts],
            "y": layers,
            "z": final,
            "text": [[f"{value:.4f}" for value in row] for row in final],
            "texttemplate": "%{text}",
            "hovertemplate": "%{y}, %{x}: %{z:.6f}<extra></extra>",
            "colorscale": "Viridis",
            "zmin": min(flat) - blank,
            "zmax": max(flat) + blank,
            "xgap": 2,
            "ygap": 2,
            "colorbar": {"title": {"text": "α"}, "outlinewidth": 0, "thickness": 14},
        }
        layout = {"xaxis": {"showgrid": False}, "yaxis": {"showgrid": False, "autorange": "reversed"}}
    else:
        trace = {
            "type": "bar",
            "x": layers,
            "y": [rounded(row[0]) for row in final],
            "text": [f"{row[0]:.4f}" for row in final],
            "textposition": "outside",
            "cliponaxis": False,
            "marker": {"color": [f"@depth{len(layers)}_{place}" for place in range(len(layers))]},
            "hovertemplate": "%{x}: %{y:.6f}<extra></extra>",
        }
        layout = {"yaxis": {"title": {"text": "injection strength α"}, "rangemode": "tozero"}}
    rows = [[layer, *(number(value) for value in row)] for layer, row in zip(layers, final, strict=True)]
    return Chart(
        "alpha_final",
        title,
        "Heatmap of the final alpha of each layer and expert."
        if len(experts) > 1
        else "Bars of the final alpha of each layer.",
        {"": [trace]},
        layout | {"showlegend": False},
        (["", *(experts if len(experts) > 1 else ["α"])], rows),
    )


def _loss(metrics: Metrics) -> Chart | None:
    train = finite_points(metrics.get("train/loss_step") or metrics.get("train/loss") or [])
    validation = finite_points(metrics.get("val/loss") or [])
    if not train and not validation:
        return None
    traces = []
    if train:
        span = len(train) / 25  # twice as long as in figures/: the raw line is beside it
        if span > 2:
            smooth = list(zip([step for step, _ in train], smoothed([value for _, value in train], span), strict=True))
            raw = line(train, "training, as logged", "@blue", line={"width": 1}, mode="lines", opacity=0.35)
            traces = [raw, line(smooth, "training, smoothed", "@blue", mode="lines")]
        else:
            traces = [line(train, "training", "@blue")]
    if validation:
        traces.append(line(validation, "validation", "@vermilion", mode="lines+markers"))
    shown, name = (validation, "validation") if validation else (train, "training")
    title = change(f"{name} loss", shown[0][1] if len(shown) > 1 else None, shown[-1][1], 3)
    return Chart(
        "loss",
        title,
        f"Line chart of training and validation loss over training steps. {title}.",
        {"": traces},
        over_steps("cross-entropy (nats per token)", room([value for _, value in [*train, *validation]], 0.05)),
        ends_table({"training": train, "validation": validation}),
    )


def _correlation(relational: Mapping[str, Any]) -> Chart | None:
    history: Sequence[Mapping[str, float]] = relational.get("history") or []
    series = {kind: history_of(history, kind) for kind in _KINDS}
    series = {kind: points for kind, points in series.items() if points}
    if not series:
        return None
    baseline = relational.get("baseline") or {}
    views, values = {}, []
    for kind, points in series.items():
        steps = [step for step, _ in points]
        traces = [line(points, "modulated encoder", "@blue", line={"width": 2.5})]
        others = {"original": "original encoder", **REFERENCES}
        for (key, name), dash in zip(others.items(), ("dash", "dot", "dashdot"), strict=True):
            if (value := baseline.get(key, {}).get(kind)) is not None:
                traces.append(level(value, steps, name, "@ink" if key == "original" else "@grey", dash))
                values.append(value)
        views[_KINDS[kind]] = traces
        values += [value for _, value in points]
    kind, points = next(iter(series.items()))
    title = change(f"{_KINDS[kind]} over all pairs", baseline.get("original", {}).get(kind), points[-1][1], 4)
    return Chart(
        "correlation",
        title,
        "Line chart over training steps of the correlation of encoder cosine with WordNet path similarity, beside the "
        f"original encoder, static embeddings and a randomly initialised encoder. {title}.",
        views,
        over_steps("correlation with path similarity", room(values, 0.02)),
        ends_table({_KINDS[kind]: points for kind, points in series.items()}),
    )


def _lift(relational: Mapping[str, Any]) -> Chart | None:
    history: Sequence[Mapping[str, float]] = relational.get("history") or []
    views, ends = {}, {}
    for kind, label in _KINDS.items():
        traces = []
        for population, name in POPULATIONS.items():
            if points := history_of(history, f"{population}/{kind}_lift"):
                trace = line(points, name, _COLOURS[population])
                found = (relational.get("interval") or {}).get(population)
                traces.append(interval(trace, *found) if found and kind == "pearson" else trace)
                ends[f"{label}, {name}"] = points
        if traces:
            steps = [step for points in ends.values() for step, _ in points]
            traces.append(level(0.0, steps, "no lift", "@ink", "dash"))
            views[label] = traces
    if not views:
        return None
    held = next((points[-1][1] for name, points in ends.items() if name == f"Pearson, {POPULATIONS['held_out']}"), None)
    title = "Lift of the correlation by population"
    if held is not None:
        title = f"Lift of Pearson on held-out pairs: {number(held, 4, signed=True)}"
    return Chart(
        "lift",
        title,
        "Line chart over training steps of the lift, modulated minus original, on three populations of pairs, with a "
        f"95% interval at the end. {title}.",
        views,
        over_steps("modulated − original", room([v for points in ends.values() for _, v in points] + [0.0], 0.002)),
        ends_table(ends),
        "The bars at the end are 95% intervals by a bootstrap over synsets; they are of Pearson alone."
        if relational.get("interval")
        else "",
    )


def _bands(relational: Mapping[str, Any]) -> Chart | None:
    before, after = bands_of(relational)
    names = [name for name in before if before[name] is not None and after[name] is not None]
    if not names:
        return None
    x = [place for place, _ in enumerate(names) for _ in range(3)]
    joined: list[float | None] = []
    for name in names:
        joined += [before[name], after[name], None]
    dots = {
        "original encoder": (before, {"color": "@paper", "size": 11, "line": {"color": "@ink", "width": 2}}),
        "modulated encoder": (after, {"color": "@blue", "size": 10}),
    }
    traces: list[Trace] = [
        {"type": "scatter", "mode": "lines", "x": x, "y": joined, "line": {"color": "@grey", "width": 1.5}}
        | {"showlegend": False, "hoverinfo": "skip"}
    ]
    for name, (values, marker) in dots.items():
        y = [rounded(values[band]) for band in names]
        traces.append(
            {"type": "scatter", "mode": "markers", "x": list(range(len(names))), "y": y, "name": name}
            | {"marker": marker, "hovertemplate": "%{y:.4f}"}
        )
    moved: Trace = {"type": "bar", "x": list(range(len(names))), "y": [rounded(after[n] - before[n]) for n in names]}
    moved |= {"name": "modulated − original", "marker": {"color": "@blue"}, "hovertemplate": "%{y:+.5f}", "width": 0.45}
    near, far = (number(after[band], 3) for band in (names[0], names[-1]))
    title = f"Mean cosine, modulated: {near} in the nearest band, {far} in the farthest"
    ticks = {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": names, "showgrid": False}
    return Chart(
        "bands",
        title,
        f"Mean cosine in each band of path similarity, original and modulated encoder. {title}.",
        {"both encoders": traces, "modulated − original": [moved]},
        {
            "xaxis": {**ticks, "title": {"text": "path similarity of the two synsets"}},
            "yaxis": {"title": {"text": "mean cosine"}},
            "hovermode": "x unified",
        },
        (["path similarity", "original", "modulated"], [[n, number(before[n]), number(after[n])] for n in names]),
    )
