"""Several runs overlaid: one figure for a paper, one page of interactive charts."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from modulant.reports.charts import COLOURS, Chart, Trace, ends_table, level, line, over_steps, room, rounded
from modulant.reports.html import bullets, escaped, figure, folded, page, paragraph, section, table
from modulant.reports.plotting import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, VERMILION, dress
from modulant.reports.plotting import line as draw_line
from modulant.reports.plotting import room as widen
from modulant.reports.report_figures import finite_points, history_of
from modulant.reports.series import Series
from probes.controls.table import POPULATION_NAMES
from probes.runs import table as tables
from probes.runs.measure import Run

_MATPLOTLIB = {"@orange": ORANGE, "@vermilion": VERMILION, "@purple": PURPLE, "@green": GREEN, "@sky": "#56B4E9"}
_MATPLOTLIB |= {"@blue": BLUE, "@ink": INK, "@grey": GREY}
_SHOWN = 12  # settings that differ, before they are folded away
_DASHES = ("solid", "dash", "dot", "dashdot")
_LINES = {"dash": "--", "dot": ":", "dashdot": "-."}
_TITLES = {
    "alpha": ("Mean α over steps", "injection strength α", 0.002),
    "validation": ("Validation loss", "cross-entropy (nats per token)", 0.05),
    "training": ("Training loss", "cross-entropy (nats per token)", 0.05),
    "lift": ("Lift of Pearson, held-out × held-out", "modulated − original", 0.002),
    "lift_all": ("Lift of Pearson, all pairs", "modulated − original", 0.002),
}

Found = Mapping[str, Any]
Overlay = dict[str, Series]  # run → series


def series_of(runs: Sequence[Run]) -> dict[str, Overlay]:
    """What is overlaid → run → series; evaluations have none."""
    found: dict[str, Overlay] = {key: {} for key in _TITLES}
    for run in runs:
        if run.report["run"]["stage"] != "fit":
            continue
        history = run.report["relational"].get("history") or []
        loss = run.metrics.get("train/loss_step") or run.metrics.get("train/loss") or []
        for key, series in (
            ("alpha", run.metrics.get("alpha/mean") or []),
            ("validation", run.metrics.get("val/loss") or []),
            ("training", loss),
            ("lift", history_of(history, "held_out/pearson_lift")),
            ("lift_all", history_of(history, "pearson_lift")),
        ):
            if points := finite_points(series):
                found[key][run.name] = points
    return found


def overlay(runs: Sequence[Run], found: Found) -> Figure | None:
    """α, validation loss and held-out lift over steps, and every run's lift with its interval; None without any."""
    series = series_of(runs)
    panels = [key for key in ("alpha", "validation", "lift") if series[key]]
    rows = [run for run in found["runs"] if "held_out" in run["lift"]]
    if not panels and not rows:
        return None
    n = len(panels) + bool(rows)
    figure = Figure(figsize=(5.2 * min(n, 2), 3.6 * (1 + (n > 2)) + 0.3 + 0.16 * len(runs)), layout="constrained")
    axes = list(figure.subplots(1 + (n > 2), min(n, 2), squeeze=False).flat)
    styles = style_of([run.name for run in runs])
    for axis, key in zip(axes, panels, strict=False):
        title, y, least = _TITLES[key]
        for name, points in series[key].items():
            colour, dash = styles[name]
            draw_line(axis, points, color=_MATPLOTLIB[colour], label=name)
            axis.lines[-1].set_linestyle(_LINES.get(dash, "-"))
        if key == "lift":
            axis.axhline(0, color=INK, linewidth=1.0, zorder=0)
        dress(axis, title=title, y=y)
        widen(axis, least)
    if rows:
        axis = axes[len(panels)]
        for place, run in enumerate(rows):
            lift, colour = run["lift"]["held_out"], _MATPLOTLIB[styles[run["name"]][0]]
            if lift["interval"]:
                axis.plot(lift["interval"], [-place, -place], color=colour, linewidth=2.2, solid_capstyle="butt")
            axis.plot([lift["value"]], [-place], color=colour, marker="o", markersize=6.5)
        axis.axvline(0, color=INK, linewidth=1.0, zorder=0)
        dress(axis, title="Final lift, held-out × held-out, 95% interval", x="lift of Pearson", grid="x")
        axis.set_yticks([-place for place in range(len(rows))], [run["name"] for run in rows])
        axis.set_ylim(-len(rows) + 0.4, 0.6)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=5))
    for axis in axes[n:]:
        axis.set_axis_off()
    shown = {str(one.get_label()): one for axis in axes[: len(panels)] for one in axis.lines}
    shown = {name: one for name, one in shown.items() if name in styles}  # less the line at zero
    if shown:
        figure.legend(list(shown.values()), list(shown), frameon=False, fontsize=9, loc="outside lower left", ncols=2)
    return figure


def style_of(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Run → colour token and dash: eight colours, then the same again dashed."""
    return {
        name: (COLOURS[i % len(COLOURS)], _DASHES[i // len(COLOURS) % len(_DASHES)]) for i, name in enumerate(names)
    }


def html(runs: Sequence[Run], found: Found) -> str:
    """The page: tables, and the overlays as charts."""
    series, styles = series_of(runs), style_of([run.name for run in runs])
    charts = {
        "alpha": _over_steps("alpha", {"": series["alpha"]}, styles),
        "loss": _over_steps("validation", {"validation": series["validation"], "training": series["training"]}, styles),
        "lift": _over_steps("lift", {"held-out": series["lift"], "all pairs": series["lift_all"]}, styles),
        "forest": _forest(found, styles),
    }
    drawn = {name: chart for name, chart in charts.items() if chart is not None}
    differences = table(*tables.differences(found))
    sections = [
        section("What differs", _settings(found)),
        section("What came of it", table(*tables.figures(found), words=2)),
        section(
            "Lift of Pearson",
            figure(drawn.get("forest")),
            table(*tables.lifts(found)),
            figure(drawn.get("lift")),
        ),
        section(f"Difference from {found['first']}", differences) if differences else "",
        section("In words", bullets(tables.verdicts(found)), paragraph(tables.NOTE, "note")),
        section("α", figure(drawn.get("alpha"))),
        section("Loss", figure(drawn.get("loss"))),
        section("Passed over", bullets(found["passed_over"])),
    ]
    lead = f"<p>{escaped(', '.join(run['name'] for run in found['runs']))}</p>"
    return page(f"{len(runs)} run{'s' * (len(runs) != 1)} compared", lead, sections, list(drawn.values()))


def _settings(found: Found) -> str:
    if not found["differs"]:
        return ""
    rows = table(*tables.settings(found), words=99)
    return rows if len(found["differs"]) <= _SHOWN else folded(f"{len(found['differs'])} settings", rows)


def _over_steps(key: str, views: Mapping[str, Overlay], styles: Mapping[str, tuple[str, str]]) -> Chart | None:
    shown = {label: overlaid for label, overlaid in views.items() if overlaid}
    if not shown:
        return None
    title, y, least = _TITLES[key]
    values = [value for overlaid in shown.values() for points in overlaid.values() for _, value in points]
    lift = key == "lift"
    traces: dict[str, list[Trace]] = {}
    for label, overlaid in shown.items():
        traces[label] = [
            line(points, name, styles[name][0], line={"dash": styles[name][1]}) for name, points in overlaid.items()
        ]
        if lift:
            steps = [step for points in overlaid.values() for step, _ in points]
            traces[label].append(level(0.0, steps, "no lift", "@ink", "dash"))
    several = len(shown) > 1
    named = {
        f"{name}, {view}" if several else name: points for view, of in shown.items() for name, points in of.items()
    }
    title = "Lift of Pearson over steps" if lift else title if not several else "Loss over steps"
    return Chart(
        key,
        title,
        f"Line chart over training steps, one line a run. {title}.",
        traces,
        over_steps(y, room([*values, 0.0] if lift else values, least)),
        ends_table(named),
    )


def _forest(found: Found, styles: Mapping[str, tuple[str, str]]) -> Chart | None:
    views: dict[str, list[Trace]] = {}
    for population in ("held_out", "all", "train", "mixed"):
        rows = [run for run in reversed(found["runs"]) if population in run["lift"]]  # plotly counts from below
        if not rows:
            continue
        lifts = [run["lift"][population] for run in rows]
        ends = [lift["interval"] or (lift["value"], lift["value"]) for lift in lifts]
        colours = [styles[run["name"]][0] for run in rows]
        views[POPULATION_NAMES[population]] = [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [rounded(lift["value"])],
                "y": [run["name"]],
                "marker": {"color": colour, "size": 10},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [rounded(high - lift["value"])],
                    "arrayminus": [rounded(lift["value"] - low)],
                    "color": colour,
                    "thickness": 2,
                    "width": 0,
                },
                "name": run["name"],
                "hovertemplate": f"%{{x:+.4f}} [{low:+.4f}, {high:+.4f}]<extra></extra>",
            }
            for run, lift, (low, high), colour in zip(rows, lifts, ends, colours, strict=True)
        ]
    if not views:
        return None
    return Chart(
        "forest",
        "Lift of each run, with its 95% interval",
        "One row a run: final lift of Pearson with its 95% interval over synsets.",
        views,
        {
            "xaxis": {
                "title": {"text": "lift of Pearson"},
                "zeroline": True,
                "zerolinecolor": "@ink",
                "showgrid": True,
            },
            "yaxis": {"showgrid": False, "type": "category"},
            "showlegend": False,
            "height": 150 + 34 * max(len(traces) for traces in views.values()),
        },
    )
