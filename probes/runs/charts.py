"""Several runs overlaid: one figure for a paper, one page of interactive charts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from modulant.reports import render
from modulant.reports.drawing.chart import COLOURS, Axis, Chart, Interval, Level, Line, Mark
from modulant.reports.drawing.figures import draw
from modulant.reports.series import Series, finite_points, history_of
from probes.runs import table as tables
from probes.runs.measure import Run

_DASHES = ("solid", "dash", "dot", "dashdot")
_AXES = {
    "alpha": Axis("injection strength α", least=0.002),
    "validation": Axis("cross-entropy (nats per token)", least=0.05),
    "lift": Axis("modulated − original", least=0.002),
}

_READING = {
    "alpha": "a line is a run; the higher, the more its modulator adds to the backbone.",
    "validation": "a line is a run; lower is better.",
    "lift": "a line is a run; above 0 its encoder follows WordNet more than before training.",
    "forest": "a row is a run, its line the 95% interval; where it includes 0, the lift could be chance.",
}

Found = Mapping[str, Any]
Overlay = dict[str, Series]  # run → series
Styles = Mapping[str, tuple[str, str]]  # run → colour and dash


def overlay(runs: Sequence[Run], found: Found) -> Figure | None:
    """α, validation loss and held-out lift over steps, and every run's lift with its interval; None without any."""
    shown = charts(runs, found)
    return draw(shown, across=2) if shown else None


def html(runs: Sequence[Run], found: Found) -> str:
    """The page: tables, and the overlays as charts."""
    return render.html(
        "runs",
        charts(runs, found),
        title=f"{len(runs)} run{'s' * (len(runs) != 1)} compared",
        lead=", ".join(run["name"] for run in found["runs"]),
        **tables.content(found),
    )


def charts(runs: Sequence[Run], found: Found) -> list[Chart]:
    """The charts for which there are figures."""
    trained, styles = [run for run in runs if run.report["run"]["stage"] == "fit"], style_of([run.name for run in runs])

    def overlaid(series: Callable[[Run], Series]) -> Overlay:
        return {run.name: points for run in trained if (points := finite_points(series(run)))}

    def lift(key: str) -> Overlay:
        return overlaid(lambda run: history_of(run.report["relational"], key))

    losses = {
        "validation": overlaid(lambda run: run.metrics.get("val/loss") or []),
        "training": overlaid(lambda run: run.metrics.get("train/loss_step") or run.metrics.get("train/loss") or []),
    }
    names = found["populations"]
    lifts = {names["held_out"]: lift("held_out/pearson_lift"), names["all"]: lift("pearson_lift")}
    made = [
        _over_steps("alpha", "Mean α", {"": overlaid(lambda run: run.metrics.get("alpha/mean") or [])}, styles),
        _over_steps("validation", "Loss", losses, styles),
        _over_steps("lift", "Lift of Pearson", lifts, styles),
        _forest(found, styles),
    ]
    return [chart for chart in made if chart is not None]


def style_of(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Run → colour token and dash: eight colours, then the same again dashed."""
    return {
        name: (COLOURS[i % len(COLOURS)], _DASHES[i // len(COLOURS) % len(_DASHES)]) for i, name in enumerate(names)
    }


def _over_steps(name: str, title: str, views: Mapping[str, Overlay], styles: Styles) -> Chart | None:
    title = f"{title} over steps"
    shown = {label: overlaid for label, overlaid in views.items() if overlaid}
    if not shown:
        return None
    if len(shown) == 1 and (only := next(iter(shown))):
        title, shown = f"{title}, {only}", {"": shown[only]}
    zero: list[Mark] = [Level(0.0, "no lift", "@ink")] if name == "lift" else []
    marks = {
        label: zero + [Line(points, run, styles[run][0], dash=styles[run][1]) for run, points in overlaid.items()]
        for label, overlaid in shown.items()
    }
    return Chart(name, title, marks, _AXES[name], reading=_READING[name])


def _forest(found: Found, styles: Styles) -> Chart | None:
    views = {
        found["populations"][population]: [
            Interval(lift["value"], lift["interval"] or (lift["value"],) * 2, run["name"], styles[run["name"]][0])
            for run in found["runs"]
            if (lift := run["lift"].get(population))
        ]
        for population in ("held_out", "all", "train", "mixed")
    }
    views = {label: marks for label, marks in views.items() if marks}
    rows = Axis(names=[run["name"] for run in found["runs"]])
    title = "Lift of each run, with its 95% interval"
    return Chart("forest", title, views, rows, Axis("lift of Pearson"), reading=_READING["forest"]) if views else None
