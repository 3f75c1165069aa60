"""A run beside its controls: which of them reach its lift, in words, as a chart and as a table."""

from collections.abc import Mapping
from typing import Any

from modulant.reports.drawing.chart import Axis, Chart, Interval
from modulant.reports.populations import population_names, with_parts_of_speech
from modulant.reports.run.rows import Report, before_and_after
from modulant.reports.series import known
from modulant.reports.table import Table
from modulant.reports.wording import counted, number, with_interval

Controls = Mapping[str, Any]  # figures.json of probe.py controls

JUDGED = ("held_out/nouns", "held_out", "all")  # the first that was measured is what a verdict is about
_SPREAD = {"validation_loss": "validation loss", "preservation": "preservation", "alpha": "final α"}


def judged(relational: Mapping[str, Any]) -> str | None:
    """The population that a run is judged by: held-out nouns, or else what there is."""
    after = before_and_after(relational)[1]
    return next((key for key in JUDGED if known(after.get(lift_of(key)))), None)


def lift_of(population: str) -> str:
    """The key of a population's lift.

    >>> lift_of("all"), lift_of("held_out")
    ('pearson_lift', 'held_out/pearson_lift')
    """
    return "pearson_lift" if population == "all" else f"{population}/pearson_lift"


def ran(controls: Controls | None) -> dict[str, Mapping[str, Any]]:
    """Controls that were run; without the treatment, and without points at another λ_keep or length of training."""
    found = (controls or {}).get("controls") or {}
    return {
        name: control
        for name, control in found.items()
        if name != (controls or {}).get("treatment") and not control.get("front")
    }


def beside(population: str, controls: Controls | None) -> str:
    """Which controls were run, and their lifts over the same pairs; or that none were."""
    lifts = {name: _spread(control, population).get("mean") for name, control in ran(controls).items()}
    said = [f"{name} {number(lift, 4, signed=True)}" for name, lift in lifts.items() if lift is not None]
    return f"; its controls: {', '.join(said)}" if said else "; no control of it was run"


def in_words(population: str, controls: Controls | None) -> str:
    """How many controls lift as much, and which; a sentence or two for who has never heard of controls."""
    lifts = {name: control for name, control in ran(controls).items() if _spread(control, population)}
    if not lifts:
        return (
            "**What brought it about is open**: no control was run, that is the same training with what is claimed to "
            "matter taken away. `python probe.py controls` runs them."
        )
    sides: dict[str, list[str]] = {}
    for name, control in lifts.items():
        difference = (control.get("difference") or {}).get(population) or {}
        once = " (one seed)" if len(difference.get("seeds", ())) == 1 else ""
        sides.setdefault(_side(difference), []).append(name + once)
    less = len(sides.get("less", ()))
    count = counted(len(lifts), "control")
    head = (
        f"**All {count} lift less**"
        if less == len(lifts) > 1
        else f"**{less} of {count} lift{'s' * (less == 1)} less**"
    )
    titles = {"less": "less", "more": "more", "even": "not told apart", "open": "without an interval, so not judged"}
    parts = [f"{title}: {', '.join(sides[side])}" for side, title in titles.items() if side in sides]
    said = "; ".join(parts)
    return (
        f"{head} than the modulator, in the mean over seeds. A control is the same training with what is claimed to "
        f"matter taken away or replaced. {said[0].upper()}{said[1:]}."
    )


def _side(difference: Mapping[str, Any]) -> str:
    """Where a control lies, by the interval of modulator − control."""
    if not difference.get("interval"):
        return "open"
    low, high = difference["interval"]
    return "less" if low > 0 else "more" if high < 0 else "even"


def _spread(control: Mapping[str, Any], population: str) -> Mapping[str, Any]:
    return control["pearson_lift"].get(population) or {}


def chart(report: Report, controls: Controls | None) -> Chart | None:
    """The run's lift and those of its controls, a row each; None where there is nothing to put beside it."""
    relational = report["relational"]
    population = judged(relational)
    lifts = {name: found for name, c in ran(controls).items() if population and (found := _spread(c, population))}
    if not lifts or population is None:
        return None
    own = before_and_after(relational)[1][lift_of(population)]
    ends = (relational.get("interval") or {}).get(population) or (own, own)
    name = "this run"
    marks = [Interval(own, tuple(ends), name, "@blue")]
    marks += [
        Interval(one["mean"], tuple(one.get("interval") or [one["mean"]] * 2), n, "@ink") for n, one in lifts.items()
    ]
    least, most = (number(end([one["mean"] for one in lifts.values()]), 4, signed=True) for end in (min, max))
    where = with_parts_of_speech(population_names(relational))[population]
    others = f"its control {least}" if len(lifts) == 1 else f"its controls {least} to {most}"
    title = f"Lift on {where}: this run {number(own, 4, signed=True)}, {others}"
    reading = (
        "a dot is a lift, its line the 95% interval. A control left of this run (blue) lifts less, so what it lacks "
        "matters; one beside it or to the right does as well without."
    )
    return Chart("controls", title, {"": marks}, Axis(names=[name, *lifts]), Axis("lift of Pearson"), reading=reading)


def table(controls: Mapping[str, Any], relational: Mapping[str, Any]) -> Table:
    """A row for each control, the treatment among them."""
    columns = with_parts_of_speech(population_names(relational))
    shown = [key for key in columns if any(control["pearson_lift"].get(key) for control in controls.values())]

    def spread(found: Mapping[str, Any] | None, signed: bool = False) -> str:
        return with_interval(found["mean"], found.get("interval"), signed=signed) if found else "–"

    cells = [
        [
            name,
            f"{control['parameters']:,}",
            ", ".join(map(str, control["seeds"])),
            *(spread(control["pearson_lift"].get(population), signed=True) for population in shown),
            *(spread(control.get(key)) for key in _SPREAD),
        ]
        for name, control in controls.items()
        if not control.get("front")  # a point at another λ_keep or length of training
    ]
    header = ["lift of Pearson", "parameters", "seeds", *(columns[key] for key in shown), *_SPREAD.values()]
    return Table(header, cells)
