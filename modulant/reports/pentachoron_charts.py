"""Charts of pentachora: the CV of their volumes over steps, and the volumes themselves beside their null."""

from collections.abc import Mapping
from typing import Any

from modulant.reports.charts import Chart, Trace, ends_table, level, line, over_steps, rounded
from modulant.reports.report_figures import history_of
from modulant.reports.wording import number

_CLOUDS = {"original": ("original encoder", "@ink"), "modulated": ("modulated encoder", "@blue")}


def pentachoron_cv(pentachoron: Mapping[str, Any]) -> Chart | None:
    """The CV over steps, with what it is compared with."""
    history = pentachoron.get("history") or []
    cv = history_of(history, "cv")
    if not cv:
        return None
    steps, last = [step for step, _ in cv], history[-1]
    reference, tolerance, null = last.get("reference"), pentachoron.get("tolerance"), last.get("null")
    traces, shapes, values = [line(cv, "modulated encoder", "@blue", line={"width": 2.5})], [], [v for _, v in cv]
    if reference is not None:
        name = pentachoron.get("reference")
        label = f"{name if isinstance(name, str) else 'reference'} {number(reference, 3)}"
        if tolerance is not None:
            label += f" ± {tolerance:g}"
            low, high = reference - tolerance, reference + tolerance
            band = {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "layer": "below", "line": {"width": 0}}
            shapes.append(band | {"y0": low, "y1": high, "fillcolor": "@green", "opacity": 0.13})
            values += [low, high]
        traces.append(level(reference, steps, label, "@green", "dash"))
    if null is not None:
        traces.append(level(null, steps, f"Gaussian null {number(null, 3)}", "@purple", "dot"))
        values.append(null)
    title = f"CV of pentachoron volumes: {number(cv[-1][1])}"
    pad = 0.06 * (max(values) - min(values)) or 0.01
    return Chart(
        "cv",
        title,
        "Line chart over training steps of the coefficient of variation of pentachoron volumes, with its reference and "
        f"a Gaussian null. {title}.",
        {"": traces},
        over_steps("CV of volumes", (min(values) - pad, max(values) + pad), shapes=shapes),
        ends_table({"CV": cv, "z": history_of(history, "z")}),
    )


def volumes(pentachoron: Mapping[str, Any]) -> Chart | None:
    """Histograms of volume ÷ mean volume, laid over each other."""
    found = pentachoron.get("volumes") or {}
    clouds = {**_CLOUDS, "null": ("Gaussian null", "@purple")}
    shown = {key: found[key] for key in clouds if found.get(key)}
    if not shown:
        return None
    width = float(found["bin_width"])
    used = max(place for shares in shown.values() for place, share in enumerate(shares) if share or not place)
    last = max(len(shares) for shares in shown.values()) - 1
    places = range(min(used + 2, last + 1))
    traces: list[Trace] = []
    for key, shares in shown.items():
        name, colour = clouds[key]
        style = {"shape": "hvh", "color": colour, "width": 2, "dash": "dot" if key == "null" else "solid"}
        traces.append(
            {"type": "scatter", "mode": "lines", "name": name, "line": style}
            | {"x": [rounded((place + 0.5) * width) for place in places], "y": [rounded(shares[p]) for p in places]}
            | {"hovertemplate": "%{y:.3f}"}
            | ({"fill": "tozeroy", "opacity": 0.9} if key == "modulated" else {})
        )
    rows = [
        [f"{'≥ ' if p == last else ''}{number(p * width, 2)}", *(number(shares[p], 3) for shares in shown.values())]
        for p in places
        if any(shares[p] for shares in shown.values())
    ]
    return Chart(
        "volumes",
        "Volumes of random pentachora, relative to their mean",
        "Histogram of pentachoron volumes divided by their mean: original encoder, modulated encoder and Gaussian "
        "points of the same scales.",
        {"": traces},
        {
            "xaxis": {"title": {"text": "volume ÷ mean volume"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": f"share of draws (bins of {width:g})"}, "rangemode": "tozero"},
            "hovermode": "x unified",
        },
        (["from", *(clouds[key][0] for key in shown)], rows),
        f"The standard deviation of each of these is its CV. The last bin holds all from {number(last * width, 0)} on."
        if len(places) > last
        else "The standard deviation of each of these is its CV.",
    )
