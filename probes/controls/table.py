"""The figures of a folder of controls as a page, a CSV, and verdicts in words; nothing is measured here."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from modulant.reports import render
from modulant.reports.populations import in_short
from modulant.reports.run.controls import JUDGED, in_words
from modulant.reports.table import Table
from modulant.reports.wording import number, with_interval
from probes.controls.fronts import COMPARED, EPOCHS
from probes.controls.measure import BOUNDED
from probes.pages import as_csv_text

Summary = Mapping[str, Any]

# Figure → its title in the table, decimals, and whether a sign belongs to it.
_OTHERS = {
    "validation_loss": ("validation loss", 4, False),
    "token_accuracy": ("token accuracy", 4, False),
    "spearman_lift": ("Spearman lift", 4, True),
    "gradient": ("gradient", 4, False),
    "preservation": ("preservation", 4, False),
    "pentachoron_cv": ("pentachoron CV", 4, False),
    "pentachoron_z": ("its z", 1, False),
    "simlex999_change": ("SimLex-999, change", 4, True),
    "wordsim353_change": ("WordSim-353, change", 4, True),
    "alpha": ("final α", 4, False),
}


def markdown(summary: Summary, failed: Sequence[str] = (), figures: Sequence[str] = ()) -> str:
    """The page.

    Args:
        failed: a line for each run that is missing.
        figures: paths of the figures, as seen from the page.
    """
    controls: Mapping[str, Any] = summary["controls"]
    lifts = {name: control["pearson_lift"] for name, control in controls.items()}
    return render.markdown(
        "controls",
        **{**summary, "verdicts": verdicts(summary), "fronts": _fronts(summary)},
        finding=_finding(summary),
        drawn={path: _shown(path) for path in figures},
        lifts=_lifts(summary),
        differences=_differences(summary),
        equal_preservation=_equal_preservation(summary),
        sweeps=_sweeps(summary),
        others=_others(summary),
        held_out=in_short(summary["populations"]),
        without_interval=[name for name, lift in lifts.items() if (lift["all"] or {}).get("interval") is None],
        failed=failed,
    )


def _finding(summary: Summary) -> list[str]:
    """What the treatment lifts and which controls do so too, for who has never seen such a page."""
    treatment, names = summary["treatment"], summary["populations"]
    treated = summary["controls"].get(treatment)
    lifts = treated["pearson_lift"] if treated else {}
    population = next((p for p in JUDGED if lifts.get(p) is not None), None)
    if population is None:
        return [f"**No verdict yet**: no run of {treatment} has ended, so nothing can be compared with it."]
    lift = lifts[population]
    return [
        f"**{treatment} moves the encoder's agreement with WordNet by "
        f"{with_interval(lift['mean'], lift.get('interval'))}** on {names[population]}: {against_zero(lift)}.",
        in_words(population, summary),
    ]


def _shown(path: str) -> tuple[str, str]:
    """What a figure shows, and how to read it."""
    shown = {
        "alphas": (
            "Lift and validation loss against α",
            "to the right the modulator adds more; a lift that rises while the loss stays low costs little.",
        ),
        "front": (
            "Lift against preservation, a line for each method and sweep",
            "to the right the encoder stays more what it was. The higher line gains more at the same price.",
        ),
    }
    other = (
        "Lift of each control, with intervals",
        "a row is a control, its line the 95% interval. Left of the dashed line it lifts less than the treatment.",
    )
    return shown.get(path.partition(".")[0], other)


def cell(spread: Mapping[str, Any] | None, digits: int = 4, signed: bool = False) -> str:
    """Mean, its interval in brackets, and least … largest over seeds.

    >>> cell({"mean": 0.02, "min": 0.01, "max": 0.03, "seeds": {0: 0.01, 1: 0.03}, "interval": (0.015, 0.025)}, 3)
    '0.020 [0.015, 0.025], 0.010 … 0.030'
    """
    if spread is None:
        return "–"
    text = with_interval(spread["mean"], spread.get("interval"), digits, signed)
    if len(spread["seeds"]) > 1:
        text += f", {number(spread['min'], digits, signed)} … {number(spread['max'], digits, signed)}"
    return text


def off_fronts(summary: Summary) -> dict[str, Mapping[str, Any]]:
    """Rows at the configuration's own λ_keep and length; the others are points of a front or of a sweep."""
    return {name: control for name, control in summary["controls"].items() if not control.get("front")}


def _columns_of(summary: Summary) -> dict[str, str]:
    """The populations that some control has a lift on, with their titles."""
    controls = summary["controls"].values()
    return {
        p: title
        for p, title in summary["populations"].items()
        if any(c["pearson_lift"].get(p) is not None for c in controls)
    }


def _lifts(summary: Summary) -> Table:
    columns = _columns_of(summary)
    rows = [
        [
            name,
            f"{control['parameters']:,}",
            ", ".join(map(str, control["seeds"])),
            *(cell(control["pearson_lift"].get(p), signed=True) for p in columns),
        ]
        for name, control in off_fronts(summary).items()
    ]
    return Table(["", "trained parameters", "seeds", *columns.values()], rows)


def _differences(summary: Summary) -> Table:
    columns = _columns_of(summary)
    rows = [
        [name, *(cell(control["difference"].get(p), signed=True) for p in columns)]
        for name, control in off_fronts(summary).items()
        if "difference" in control
    ]
    return Table(["", *columns.values()], rows)


def _fronts(summary: Summary) -> Table:
    """A row for each point of each front."""
    points = [
        (method, f"{summary['controls'][name]['keep']:g}", name)
        for method, names in summary["fronts"]["methods"].items()
        for name in names
    ]
    return _points(summary, "λ_keep", points)


def _sweeps(summary: Summary) -> Table:
    """A row for each point of each sweep."""
    points = [
        (name, f"{value:g} ep." if sweep == EPOCHS else f"α {value:.3g}", name)
        for sweep, values in summary["fronts"]["sweeps"].items()
        for name, value in values.items()
    ]
    return _points(summary, "at", points)


def _points(summary: Summary, at: str, points: Iterable[tuple[str, str, str]]) -> Table:
    """Preservation, lifts and changes of rated similarity of rows.

    Args:
        at: title of where a point is.
        points: of each what stands first, where it is, and the name of its row.
    """
    changes = [key for key in BOUNDED if any(control[key] for control in summary["controls"].values())]
    rows = [
        [
            first,
            where,
            ", ".join(map(str, control["seeds"])),
            cell(control["preservation"]),
            *(cell(control["pearson_lift"].get(p), signed=True) for p in COMPARED),
            *(cell(control[key], signed=True) for key in changes),
        ]
        for first, where, name in points
        for control in (summary["controls"][name],)
    ]
    titles = [*(summary["populations"][p] for p in COMPARED), *(_OTHERS[key][0] for key in changes)]
    return Table(["", at, "seeds", "preservation", *titles], rows)


def _equal_preservation(summary: Summary) -> Table:
    """Treatment − method, a row for each preservation."""
    rows = [
        [
            method,
            number(point["preservation"]),
            point["row"],
            ", ".join(map(str, found["seeds"])),
            *(cell(point[p], signed=True) for p in COMPARED),
        ]
        for method, found in summary["fronts"]["differences"].items()
        for point in found["points"]
    ]
    return Table(["", "preservation", "of", "seeds", *(summary["populations"][p] for p in COMPARED)], rows)


def _others(summary: Summary) -> Table:
    held = {
        key: title
        for key, title in _OTHERS.items()
        if any(control[key] is not None for control in summary["controls"].values())
    }
    rows = [
        [name, *(cell(control[key], *_OTHERS[key][1:]) for key in held)]
        for name, control in summary["controls"].items()
    ]
    if summary["original"]:
        known = {"preservation": 1.0, "spearman_lift": 0.0} | dict(summary["original"])
        rows.insert(0, ["original encoder", *(number(known.get(key), *_OTHERS[key][1:]) for key in held)])
    return Table(["", *(title for title, *_ in held.values())], rows)


def verdicts(summary: Summary) -> list[str]:
    """A sentence for each comparison: the treatment with the original encoder, then with each control."""
    treatment = summary["treatment"]
    treated = summary["controls"].get(treatment)
    if treated is None:
        return [f"no run of {treatment} has ended, so nothing can be compared with it"]
    names = summary["populations"]
    judged = {"held_out/nouns": names["held_out/nouns"], "held_out": in_short(names), "all": names["all"]}
    lines = [
        f"{treatment} on {judged[p]}: {cell(lift, signed=True)}: {against_zero(lift)}"
        for p in judged
        if (lift := treated["pearson_lift"].get(p)) is not None
    ]
    for name, control in summary["controls"].items():
        for p in judged:
            found = control.get("difference", {}).get(p)
            if found is not None:
                value = with_interval(found["mean"], found.get("interval"))
                lines.append(f"{treatment} − {name} on {judged[p]}: {value}: {against_control(found)}")
        if "difference" in control and control["difference"]["all"] is None:
            lines.append(f"{treatment} − {name}: no seed that both have")
    return lines + list(_along_fronts(summary, judged))


def _along_fronts(summary: Summary, judged: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each method and population: where on the front the treatment's lift is larger."""
    for method, compared in summary["fronts"]["differences"].items():
        subject = f"{summary['treatment']} − {method}"
        if not compared["points"]:
            why = "the fronts share no preservation" if compared["seeds"] else "no seed that all of their points have"
            yield f"{subject} at equal preservation: {why}"
        for p in COMPARED:
            said: dict[str, list[str]] = {}
            for point in compared["points"]:
                if (found := point[p]) is not None:
                    value = with_interval(found["mean"], found.get("interval"))
                    said.setdefault(against_control(found), []).append(f"{value} at {number(point['preservation'], 3)}")
            if said:
                parts = "; ".join(f"{', '.join(values)}: {what}" for what, values in said.items())
                yield f"{subject} on {judged[p]} at equal preservation: {parts}"


def against_zero(lift: Mapping[str, Any]) -> str:
    """What a lift and its interval say of it.

    >>> against_zero({"interval": (-0.001, 0.002), "min": -0.001, "max": 0.001, "seeds": {0: 0.0}})
    'not distinguishable from no lift (one seed)'
    """
    said = _side(lift, "a lift", "a loss", "not distinguishable from no lift")
    return said + _seeds(lift)


def against_control(difference: Mapping[str, Any]) -> str:
    """What a difference and its interval say of the treatment.

    >>> against_control({"interval": (0.004, 0.02), "min": 0.01, "max": 0.014, "seeds": {0: 0.01, 1: 0.014}})
    'larger than this control'
    """
    said = _side(
        difference, "larger than this control", "smaller than this control", "not distinguishable from this control"
    )
    return said + _seeds(difference)


def _side(spread: Mapping[str, Any], above: str, below: str, neither: str) -> str:
    interval = spread.get("interval")
    if not interval:
        return "no interval, so nothing is said"
    low, high = interval
    return above if low > 0 else below if high < 0 else neither


def _seeds(spread: Mapping[str, Any]) -> str:
    """A qualifier where there is one seed, or where seeds differ in sign: then the interval alone proves nothing."""
    if len(spread["seeds"]) == 1:
        return " (one seed)"
    decided = spread.get("interval") and not spread["interval"][0] <= 0 <= spread["interval"][1]
    return " in the mean, but not with every seed" if decided and spread["min"] * spread["max"] <= 0 else ""


def as_csv(summary: Summary) -> str:
    """One row a control, one column a figure."""
    controls, populations = summary["controls"], summary["populations"]
    return as_csv_text([dict(_flat(name, control, populations)) for name, control in controls.items()])


def _flat(name: str, control: Mapping[str, Any], populations: Iterable[str]) -> Iterator[tuple[str, Any]]:
    yield from (
        ("control", name),
        ("parameters", control["parameters"]),
        ("seeds", " ".join(map(str, control["seeds"]))),
        ("keep", control["keep"]),
        ("epochs", control["epochs"]),
    )
    for population in populations:
        for what in ("pearson_lift", "difference"):
            yield from _columns(f"{what}/{population}", (control.get(what) or {}).get(population))
    for key in _OTHERS:
        yield from _columns(key, control[key])


def _columns(key: str, spread: Mapping[str, Any] | None) -> Iterator[tuple[str, float]]:
    if spread is not None:
        yield from ((key, spread["mean"]), (f"{key}_min", spread["min"]), (f"{key}_max", spread["max"]))
        if spread.get("interval"):
            yield from ((f"{key}_low", spread["interval"][0]), (f"{key}_high", spread["interval"][1]))
