"""The parts of a model card that hold figures: pure functions of a run's report and of its controls, to Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

_POPULATIONS = {
    "all": "all pairs",
    "train": "training × training",
    "mixed": "training × held-out",
    "held_out": "held-out × held-out",
}
_LOSS = {
    "val/loss": "validation loss, nats per token",
    "val/exact_match": "exact match",
    "val/token_accuracy": "token accuracy",
}
_NO_CONTROLS = (
    "None were run for this modulator when the card was written: **a lift without its controls is no result**. "
    "`python probe.py controls` runs them; `modulators.write_card` adds them here."
)


def changed(report: Mapping[str, Any]) -> str:
    """Correlations before and after, with their intervals."""
    relational = report.get("relational") or {}
    last, original = relational.get("last") or {}, (relational.get("baseline") or {}).get("original") or {}
    interval = relational.get("interval") or {}
    rows = []
    for population, title in _POPULATIONS.items():
        key = "pearson" if population == "all" else f"{population}/pearson"
        if key in last and f"{key}_lift" in last:
            lift = number(last[f"{key}_lift"], signed=True) + _interval(interval.get(population))
            pairs = last.get(key.replace("pearson", "pairs"))
            count = f"{pairs:,.0f}" if pairs is not None else "–"
            rows.append([title, count, number(original.get(key)), number(last[key]), lift])
    if not rows:
        return ""
    said = ["Pearson correlation of the encoder's cosines with WordNet path similarity, before → after:"]
    said += [_table(["pairs of synsets", "number", "backbone", "modulated", "lift, 95% interval"], rows)]
    others = [
        f"{title} {number(original.get(key))} → {number(last[key])}"
        for key, title in (("spearman", "Spearman"), ("gradient", "gradient (near − far)"))
        if key in last
    ]
    if "preservation" in last:
        others.append(
            f"preservation (mean cosine with the backbone's own representation) {number(last['preservation'])}"
        )
    baseline = relational.get("baseline") or {}
    for key, title in (("static", "static embeddings alone"), ("random", "a randomly initialised encoder")):
        if "pearson" in baseline.get(key, {}):
            others.append(f"Pearson of {title} {number(baseline[key]['pearson'])}")
    said.append("; ".join(others) + ".")
    if interval:
        over = "" if relational.get("pairs") in (None, "all") else " and over all pairs, where the lifts are a sample's"
        said.append(f"Intervals: a bootstrap over synsets{over}. They say nothing of another training seed.")
    return "\n\n".join(said)


def task(report: Mapping[str, Any]) -> str:
    """Loss, answers and pentachora before and after."""
    metrics = (report.get("run") or {}).get("metrics") or {}
    rows = [
        [title, number(metrics[key].get("first")), number(metrics[key].get("last"))]
        for key, title in _LOSS.items()
        if key in metrics
    ]
    health = report.get("pentachoron") or {}
    first, last = health.get("base") or {}, health.get("last") or {}
    if "cv" in last:
        rows.append(["CV of pentachoron volumes", number(first.get("cv")), number(last["cv"])])
        rows.append(["its z against Gaussian points", number(first.get("z"), 1), number(last.get("z"), 1)])
    if not rows:
        return ""
    told = f"\n\nThe CV's reference was {number(last.get('reference'))}." if "cv" in last else ""
    return _table(["", "before", "after"], rows) + told


def alpha(alpha: Mapping[str, Any]) -> str:
    """α of each layer and expert at the end."""
    final, experts = alpha.get("final"), list(alpha.get("experts") or [])
    if not final:
        return ""
    rows = [[str(layer), *map(number, row)] for layer, row in zip(alpha["layers"], final, strict=True)]
    started = alpha.get("initial")
    from_ = f"\n\nAll began at {number(started[0][0])}." if started and _constant(started) else ""
    at = (alpha.get("convergence") or {}).get("converged_at")
    settled = f" They stopped moving at step {at}." if at is not None else " They were still moving at the end."
    return _table(["layer", *experts], rows) + from_ + (settled if from_ else "")


def controls(controls: Mapping[str, Any] | None) -> str:
    """What the controls reached; that there are none is said."""
    known: Mapping[str, Any] = (controls or {}).get("controls") or {}
    if not known:
        return _NO_CONTROLS
    rows = []
    for name, found in known.items():
        lifts = found.get("pearson_lift") or {}
        shown = [
            number(lift["mean"], signed=True) + _interval(lift.get("interval")) if lift else "–"
            for lift in (lifts.get("all"), lifts.get("held_out"))
        ]
        rows.append([name, f"{found.get('parameters') or 0:,}", str(len(found.get("seeds") or [])), *shown])
    header = ["", "trained parameters", "seeds", "lift, all pairs", "held-out × held-out"]
    said = ["Runs of their own, beside runs with this modulator's settings:", _table(header, rows)]
    verdicts = (controls or {}).get("verdicts") or []
    return "\n\n".join([*said, *(["\n".join(f"- {line}" for line in verdicts)] if verdicts else [])])


def _constant(rows: Sequence[Sequence[float]]) -> bool:
    return len({round(value, 6) for row in rows for value in row}) == 1


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rules = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rules, *rows))


def _interval(ends: Sequence[float] | None) -> str:
    return f" [{number(ends[0], signed=True)}, {number(ends[1], signed=True)}]" if ends else ""


def number(value: float | None, digits: int = 4, signed: bool = False) -> str:
    """Rounded, with a true minus sign; a dash for none."""
    if value is None:
        return "–"
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")
