"""What a run found, in sentences: in short, for who has never seen such a page, and figure by figure."""

from collections.abc import Mapping
from typing import Any

from modulant.reports.populations import in_short, population_names, with_parts_of_speech
from modulant.reports.run.controls import beside, judged, lift_of, ran
from modulant.reports.run.controls import in_words as controls_in_words
from modulant.reports.run.rows import Report, at_step, before_and_after, convergence, ending, mean, step_of
from modulant.reports.series import known
from modulant.reports.wording import interval, listed, number

_BITS = "val/bits_per_byte"
_WITHOUT = {"uniform": "equal chances", "unigram": "token frequencies alone", "xz": "xz", "bz2": "bz2"}


_COMPRESSORS = ("xz", "bz2")
_PAIRS = {
    "held_out/nouns": "pairs of nouns that training has not used",
    "held_out": "pairs that training has not used",
    "all": "all pairs, those of training among them",
}


def in_words(report: Report, controls: Mapping[str, Any] | None = None) -> list[str]:
    """The verdict, a paragraph each: what changed, whether controls do it too, what else changed, how the run ended.

    Args:
        controls: figures.json of ``probe.py controls``.
    """
    end, population = ending(report), judged(report["relational"])
    low, high = _ends(report, population) or (0.0, 0.0)
    moved = low > 0 or high < 0
    kept, task = _preservation(report["relational"]), _task(report)
    first = _text_in_words(report) or (population and _lift_in_words(report, population))
    if not first and task:
        first, task = f"**{task.removesuffix('.')}**. Of a loss lower is better, of a match higher.", ""
    end_first = report["run"]["outcome"] != "finished" or not first
    found = [
        end if end_first else "",
        first or "**No verdict**: of the trained model nothing was measured.",
        controls_in_words(population, controls) if population and (moved or ran(controls)) else "",
        f"**What else changed**: {kept[0].lower()}{kept[1:-1]} (1: unchanged). {task}" if kept else task,
        "" if end_first else end,
    ]
    return [text.strip() for text in found if text]


def _ends(report: Report, population: str | None) -> tuple[float, float] | None:
    """The interval of a population's lift."""
    ends = (report["relational"].get("interval") or {}).get(population)
    return (ends[0], ends[1]) if ends else None


def _lift_in_words(report: Report, population: str) -> str:
    before, after = before_and_after(report["relational"])
    key = lift_of(population).removesuffix("_lift")
    lift, first, last = after[f"{key}_lift"], before.get(key), after.get(key)
    if (ends := _ends(report, population)) is None:
        said, bounds = "The encoder's agreement with WordNet has no interval, so nobody can tell this from chance", ""
    else:
        low, high = ends
        said = "The encoder's agreement with WordNet did not change beyond chance"
        said = "The encoder follows WordNet more closely than before" if low > 0 else said
        said = "The encoder follows WordNet less closely than before" if high < 0 else said
        bounds = f", 95% interval {number(low, 3, signed=True)} to {number(high, 3, signed=True)}"
    went = f"went from {number(first, 3)} to {number(last, 3)}" if known(first) else f"is {number(last, 3)}"
    return (
        f"**{said}**: on {_PAIRS[population]}, the correlation of its cosines with WordNet's path similarity {went}"
        f"{at_step(report, after.get('step'))} (a lift of {number(lift, 3, signed=True)}{bounds}). 1 would be a "
        "perfect match, 0 none."
    )


def _text_in_words(report: Report) -> str:
    """How well held-out text is predicted, against compressors where these were measured."""
    part, figures, last = _bits(report)
    if last is None:
        return ""
    without = report["model"]["describe"].get("references") or {}
    packed = {name: without[name] for name in _COMPRESSORS if known(without.get(name))}
    worse = [name for name, bits in packed.items() if last >= bits]
    said = f"The model needs {number(last, 2)} bits for a byte of the {part} text"
    if packed:
        better = [name for name in packed if name not in worse]
        beats = f"better than {listed(better)} would pack it" if better else ""
        loses = f"no better than {listed(worse)} would pack it" if worse else ""
        said = f"The model predicts the {part} text {' but '.join(part for part in (beats, loses) if part)}"
    beside = {name: without[key] for key, name in _WITHOUT.items() if known(without.get(key))}
    against = f", {', '.join(f'{name} {number(bits, 2)}' for name, bits in beside.items())}" if beside else ""
    began = known(figures.get("first")) and figures.get("first_step") != figures.get("last_step")
    before = f" ({number(figures['first'], 2)} at the start)" if began else ""
    known_text = " The compressors know this text alone, the model knows the training part." if packed else ""
    return (
        f"**{said}**: {number(last, 2)} bits per byte{before}{at_step(report, step_of(report, figures))}{against}. "
        f"Fewer is better; a byte as it is stored has 8.{known_text}"
    )


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
    return (
        f"**{number(lift, 4, signed=True)}**{bracket}{sample}{said}"
        f"{beside(population, controls)}. Pearson of encoder cosine with WordNet "
        f"path similarity went from {number(first)} to {number(last)}{at_step(report, after.get('step'))}{over}{where}."
    )


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
    part, figures, last = _bits(report)
    if last is None:
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


def _bits(report: Report) -> tuple[str, Mapping[str, Any], float | None]:
    """The part of the text, what was logged of its bits per byte, and the last of these if there is one."""
    key, part = ("test/bits_per_byte", "test") if report["run"]["stage"] == "test" else (_BITS, "validation")
    figures = (report["run"].get("metrics") or {}).get(key) or {}
    return part, figures, figures["last"] if known(figures.get("last")) else None


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
