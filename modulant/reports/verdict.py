"""The summary of a run: what it found, in a few sentences with their figures. It stands first on the page."""

from collections.abc import Mapping
from typing import Any

from modulant.reports.rows import (
    Report,
    at_step,
    before_and_after,
    convergence,
    ending,
    in_short,
    mean,
    population_names,
    step_of,
    with_parts_of_speech,
)
from modulant.reports.series import known
from modulant.reports.wording import interval, number

_BITS = "val/bits_per_byte"
_WITHOUT = {"uniform": "equal chances", "unigram": "token frequencies alone", "xz": "xz", "bz2": "bz2"}


def verdict(report: Report, controls: Mapping[str, Any] | None = None) -> list[tuple[str, str]]:
    """Subjects and their sentences; what was not measured is left out.

    Args:
        controls: figures.json of ``probe.py controls``.
    """
    alpha, relational = report["alpha"], report["relational"]
    names = population_names(relational)
    lifts = {key: name for key, name in with_parts_of_speech(names).items() if key.startswith("held_out/")}
    lifts |= {"held_out": in_short(names), "all": names["all"]}
    found = [
        *((f"Lift, {name}", _lift(report, key, controls)) for key, name in lifts.items()),
        ("Text", _text(report)),
        ("Task", _task(report)),
        ("α", " ".join(part for part in (_alpha(alpha), convergence(alpha)) if part)),
        ("Pentachora", _pentachora(report)),
        ("Distance", _preservation(relational)),
        ("Ending", ending(report)),
    ]
    return [(name, sentence) for name, sentence in found if sentence]


def _lift(report: Report, population: str, controls: Mapping[str, Any] | None) -> str:
    relational, (before, after) = report["relational"], before_and_after(report["relational"])
    prefix = "" if population == "all" else f"{population}/"
    key = f"{prefix}pearson"
    lift, first, last = after.get(f"{key}_lift"), before.get(key), after.get(key)
    if lift is None or first is None or last is None:
        return ""
    ends = (relational.get("interval") or {}).get(population)
    sampled = ends and relational.get("pairs") not in (None, "all")
    sample = " (of a sample of the pairs; the interval is over all of them)" if sampled else ""
    said = ", not bounded by an interval"
    if ends:
        low, high = ends
        said = ": a lift" if low > 0 else ": a loss" if high < 0 else ": not distinguishable from no lift"
    pairs = after.get(f"{prefix}pairs")
    over = f" over {int(pairs):,} pairs" if isinstance(pairs, int | float) else ""
    of, _, stratum = population.partition("/")
    where = "" if population == "all" else f", {f'{stratum} alone, ' * bool(stratum)}{population_names(relational)[of]}"
    bracket = f" {interval(ends)}" if ends else ""
    beside = _beside(population, controls)
    return (
        f"**{number(lift, 4, signed=True)}**{bracket}{sample}{said}{beside}. Pearson of encoder cosine with WordNet "
        f"path similarity went from {number(first)} to {number(last)}{at_step(report, after.get('step'))}{over}{where}."
    )


def _beside(population: str, controls: Mapping[str, Any] | None) -> str:
    """Which controls were run, and their lifts over the same pairs; or that none were.

    Points of a front at another λ_keep, or of a sweep over epochs, are none of them.
    """
    if not controls or not controls.get("controls"):
        return "; no control of it was run"
    lifts = {
        name: (control["pearson_lift"].get(population) or {}).get("mean")
        for name, control in controls["controls"].items()
        if name != controls.get("treatment") and not control.get("front")
    }
    known = [f"{name} {number(lift, 4, signed=True)}" for name, lift in lifts.items() if lift is not None]
    return f"; its controls: {', '.join(known)}" if known else "; no control of it was run"


def _task(report: Report) -> str:
    def change(name: str, figures: Mapping[str, Any] | None, digits: int) -> str:
        if not figures or figures.get("last") is None:
            return ""
        began = figures.get("first") is not None and figures.get("first_step") != figures.get("last_step")
        before = f"{number(figures['first'], digits)} → " if began else ""
        return f"{name} {before}{number(figures['last'], digits)}{at_step(report, step_of(report, figures))}"

    parts = [
        change("validation loss", report["loss"].get("validation"), 3),
        change("exact match", report["run"]["metrics"].get("val/exact_match"), 4),
        change("test loss", report["loss"].get("test"), 3),
    ]
    text = ", ".join(part for part in parts if part)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _text(report: Report) -> str:
    """Bits per byte of held-out text, beside what it costs without a model."""
    logged = report["run"]["metrics"]
    key, part = ("test/bits_per_byte", "test") if report["run"]["stage"] == "test" else (_BITS, "validation")
    figures = logged.get(key) or {}
    if not known(last := figures.get("last")):
        return ""
    said = f"**{number(last, 4)} bits per byte** of the {part} text{at_step(report, step_of(report, figures))}"
    without = report["model"]["describe"].get("references") or {}
    beside = {name: without[key] for key, name in _WITHOUT.items() if known(without.get(key))}
    if not beside:
        return f"{said}."
    parts = []
    for better, words in ((True, "fewer than"), (False, "no fewer than")):
        if named := [f"{name} ({number(bits, 3)})" for name, bits in beside.items() if (last < bits) is better]:
            parts.append(f"{words} {', '.join(named)}")
    return f"{said}: {'; '.join(parts)}. xz and bz2 know this text alone, the model knows the training part."


def _alpha(alpha: Mapping[str, Any]) -> str:
    values = [value for row in alpha.get("final") or [] for value in row if value is not None]
    if not values:
        return ""
    start = mean(alpha.get("initial"))
    moved = f" (mean {number(mean([values]))}; {number(start)} at the start)" if start is not None else ""
    return f"From {number(min(values))} to {number(max(values))} over layers and experts{moved}."


def _pentachora(report: Report) -> str:
    pentachoron, (before, after) = report["pentachoron"], before_and_after(report["pentachoron"])
    if after.get("cv") is None:
        return ""
    text = f"CV of volumes {number(before.get('cv'))} → {number(after['cv'])}{at_step(report, after.get('step'))}"
    reference, tolerance = after.get("reference"), pentachoron.get("tolerance")
    if reference is not None and tolerance is not None:
        inside = abs(after["cv"] - reference) <= tolerance
        text += f", {'within' if inside else 'out of'} {number(reference)} ± {tolerance:g} ({pentachoron['reference']})"
    if after.get("z") is not None:
        text += f"; {number(after['z'], 1, signed=True)} standard deviations from Gaussian points"
    return text + "."


def _preservation(relational: Mapping[str, Any]) -> str:
    kept = (relational.get("last") or {}).get("preservation")
    return "" if kept is None else f"Mean cosine of an entry's representation with its original one: {number(kept)}."
