"""What a report says, section by section: tables and sentences, from the dictionary of report.json alone.

Sentences may hold Markdown's `code` and **bold**. The Markdown page and the HTML page are made of the same ones.
"""

from collections.abc import Mapping
from typing import Any

from modulant.reports.choosing import caveat, includes_reported
from modulant.reports.populations import population_names
from modulant.reports.table import Table
from modulant.reports.wording import counted, duration, interval, number, with_interval

Report = Mapping[str, Any]

NOT_MEASURED = "not measured"
_OF_TEXT = {
    "bits_per_byte": "bits per byte",
    "bits_per_byte_annealed": "bits per byte at the annealing's end",
    "perplexity": "perplexity of a token",
}
_FOLLOWED = {
    "pearson": "Pearson with path similarity",
    "spearman": "Spearman",
    "gradient": "gradient",
    "chain/depth_1": "mean cosine one hypernym up",
    "chain/depth_4": "four hypernyms up",
    "category/gap": "mean cosine within a category, minus overall",
}


def title(report: Report) -> str:
    model, stage = report["model"], report["run"]["stage"]
    what = model.get("learns") or model.get("module") or "model"
    verb = {"fit": "Training", "validate": "Validation", "test": "Test"}.get(stage, stage.capitalize())
    return f"{verb} of {what}"


def ending(report: Report) -> str:
    """How a run ended, as a sentence; nothing for an evaluation that finished."""
    run, stop = report["run"], report["stop"]
    if run["stage"] == "fit":
        how = {"finished": "Ended", "interrupted": "**Interrupted**", "failed": "**Failed**"}[run["outcome"]]
        spent = duration(report["time"]["total_s"])
        trained = f"{counted(run['steps'], 'step')}, {counted(run['epochs'], 'epoch')}"
        result = run.get("result")
        artefact = f" The artefact is of step {result['step']}: {result['reason']}." if result else ""
        return f"{how} after {trained}, {spent}: {stop['reason']}.{artefact}"
    if run["outcome"] != "finished":
        return f"**{run['outcome'].capitalize()}**: {stop['reason']}."
    return ""


def _row(name: str, before: Any, after: Any, percent: bool = False, digits: int = 4) -> list[str]:
    known = isinstance(before, int | float) and isinstance(after, int | float)
    change = number(after - before, digits, signed=True) if known else "–"
    if known and percent and abs(before) >= 10 ** (2 - digits):  # two digits or more of it are shown
        change += f" ({number(100 * (after - before) / abs(before), 1, signed=True)} %)"
    return [name, number(before, digits), number(after, digits), change]


def headline(report: Report) -> Table:
    """The main figures before and after, and their change.

    With a column for the step of "after" where a figure was measured at another step than the run's last.
    """
    end = report["run"]["steps"]
    rows: list[list[str]] = []
    steps: list[int | None] = []  # of "after", by row

    def add(row: list[str], step: int | None) -> None:
        rows.append(row if step is not None else [*row[:2], NOT_MEASURED, "–"])
        steps.append(step)

    logged = report["run"]["metrics"]
    validation = {
        f"{name}, {part}": logged.get(f"{stage}/{key}")
        for stage, part in (("val", "validation"), ("test", "test"))
        for key, name in _OF_TEXT.items()
    }
    validation |= {"validation loss (nats per token)": report["loss"].get("validation")} | {
        f"{name}, validation": logged.get(key)
        for key, name in (("val/token_accuracy", "token accuracy"), ("val/exact_match", "exact match"))
    }
    for name, measured in validation.items():
        if measured:
            add(_row(name, _first(measured), measured.get("last")), step_of(report, measured))
    relational = report["relational"]
    before, after = before_and_after(relational)
    known = after or relational.get("first") or {}
    held_out = population_names(relational)["held_out"]
    for key, name in (_FOLLOWED | {"held_out/pearson": f"Pearson, {held_out}"}).items():
        if key in known:
            add(_row(name, before.get(key), after.get(key), percent=True), after.get("step"))
    if "preservation" in known:
        kept = number(after.get("preservation"))
        add(["preservation (mean cosine to the original)", "1.0000", kept, "–"], after.get("step"))
    before, after = before_and_after(report["pentachoron"])
    known = after or report["pentachoron"].get("first") or {}
    if "cv" in known:
        add(_row("CV of pentachoron volumes", before.get("cv"), after.get("cv"), percent=True), after.get("step"))
    if "z" in known:
        add(_row("its z-score against Gaussian points", before.get("z"), after.get("z"), digits=1), after.get("step"))
    alpha = report["alpha"]
    if alpha.get("final"):
        add(_row("mean α", mean(alpha.get("initial")), mean(alpha["final"])), end)
    header = ["", "before", "after", "change"]
    if any(step != end for step in steps):
        header.append("at step")
        rows = [[*row, "–" if step is None else f"{step:,}"] for row, step in zip(rows, steps, strict=True)]
    return Table(header, rows)


def step_of(report: Report, measured: Mapping[str, Any]) -> int | None:
    """Optimizer steps before a logged figure was last measured; None if that was before training only."""
    if "last" not in measured:
        return None
    # Lightning logs under the number of the last batch, from 0; an evaluation is of one checkpoint.
    logged = measured.get("last_step") if report["run"]["stage"] == "fit" else None
    return int(report["run"]["steps"]) if logged is None else int(logged) + 1


def at_step(report: Report, step: float | None) -> str:
    """Words for when a figure was measured, unless that is the run's last step.

    >>> at_step({"run": {"steps": 1300}}, 1200), at_step({"run": {"steps": 1300}}, 1300)
    (' at step 1,200', '')
    """
    return "" if step in (None, report["run"]["steps"]) else f" at step {int(step):,}"


def _first(measured: Mapping[str, Any]) -> Any:
    """The first value, unless it is the last as well."""
    return measured.get("first") if measured.get("first_step") != measured.get("last_step") else None


def before_and_after(summary: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Figures of the frozen backbone, or else the first that were measured, and the last of what was trained."""
    base = summary.get("base") or (summary.get("baseline") or {}).get("original") or summary.get("first") or {}
    return base, summary.get("last") or {}


def mean(values: Any) -> float | None:
    flat = [value for row in values or [] for value in row if value is not None]  # None is what was no finite number
    return sum(flat) / len(flat) if flat else None


def baselines(relational: Mapping[str, Any]) -> str:
    """The correlation of encoders that nothing trained, in a sentence."""
    named = {"static": "static embeddings", "random": "a randomly initialised encoder"}
    parts = [
        f"{name} {number(relational['baseline'][key].get('pearson'))}"
        for key, name in named.items()
        if key in (relational.get("baseline") or {})
    ]
    return f"For comparison, Pearson of {' and of '.join(parts)}." if parts else ""


def alphas(alpha: Mapping[str, Any]) -> Table:
    """α of each layer at the start and at the end, and by expert where there are several."""
    if not alpha.get("final"):
        return Table([], [])
    experts = alpha["experts"]
    several = len(experts) > 1
    header = ["layer", "start", *(experts if several else []), "mean" if several else "final"]
    initial = alpha.get("initial") or [[None]] * len(alpha["final"])
    rows = []
    for layer, start, row in zip(alpha["layers"], initial, alpha["final"], strict=True):
        cells = [number(value) for value in row] if several else []
        rows.append([str(layer), number(mean([start]) if None not in start else None), *cells, number(mean([row]))])
    return Table(header, rows)


def convergence(alpha: Mapping[str, Any]) -> str:
    """Whether α converged, as a sentence."""
    found = alpha.get("convergence")
    if not alpha.get("final") or not found:
        return ""
    if alpha.get("initial") == alpha["final"]:
        return "Not converged: no α has moved; its learning rate is zero, it does not learn, or nothing was trained."
    at = found.get("converged_at")
    rest = f"the last {found['window']} checks, {found['every_n_steps']} steps apart"
    tolerance = f"{found['tolerance']:g}"
    moved, share = found.get("moved_in_window"), found.get("rate_share")
    ended = share is not None and share < 0.1
    scheduled = f"the schedule had brought the learning rate to {number(share, 2)} of its largest"
    if at is not None:
        by_then = f" In the end {scheduled}." if ended else ""
        return f"Converged at step {at}: no α moved more than {tolerance} over {rest}.{by_then}"
    checks = found.get("checks", found["window"])
    if moved is None or moved > found["tolerance"] or checks < found["window"]:
        seen = f"; the largest movement was {moved:.2g}" if moved is not None else ""
        few = f"; so far there {'was' if checks == 1 else 'were'} {checks}" if checks < found["window"] else ""
        return f"Not converged: that would take no α moving more than {tolerance} over {rest}{few}{seen}."
    if ended:
        why = f"{scheduled}, so that rest is the schedule's"
    else:
        reach, walk = found.get("reach_in_window"), found.get("walk_in_window")
        known = reach is not None and walk is not None
        range_ = f": {reach:.2g} all in one direction, about {1.6 * walk:.2g} in random ones" if known else ""
        why = f"at this learning rate the optimizer moves α by little in such a time{range_}"
    return f"Not converged: no α moved more than {moved:.2g} over {rest}, but {why}."


def populations(relational: Mapping[str, Any]) -> Table:
    """Correlation before and after on the populations of pairs."""
    before, after = before_and_after(relational)
    rows = []
    for key, name in population_names(relational).items():
        if f"{key}/pearson" not in after:
            continue
        for figure in ("pearson", "spearman"):
            pairs = after.get(f"{key}/pairs")
            _, first, last, change = _row("", before.get(f"{key}/{figure}"), after.get(f"{key}/{figure}"), percent=True)
            shown = f"{int(pairs):,}" if isinstance(pairs, int | float) else "–"
            rows.append([f"{name}, {figure.capitalize()}", shown, first, last, change])
    return Table(["", "pairs", "before", "after", "lift"], rows)


def parts_of_speech(relational: Mapping[str, Any]) -> Table:
    """Pearson before and after on held-out pairs, of nouns, of verbs and of all, with the lift's interval."""
    before, after = before_and_after(relational)
    rows = []
    for name, key in (("nouns", "held_out/nouns"), ("verbs", "held_out/verbs"), ("all", "held_out")):
        figure = f"{key}/pearson"
        if figure in after:
            pairs, lift = after.get(f"{key}/pairs"), after.get(f"{figure}_lift")
            ends = (relational.get("interval") or {}).get(key)
            count = f"{int(pairs):,}" if isinstance(pairs, int | float) else "–"
            shown = with_interval(lift, ends)
            rows.append([name, count, number(before.get(figure)), number(after[figure]), shown])
    header = [f"Pearson, {population_names(relational)['held_out']}", "pairs", "before", "after", "lift, 95% interval"]
    return Table(header, rows if len(rows) > 1 else [])


def intervals(relational: Mapping[str, Any]) -> str:
    """The lift's intervals, and what they do and do not cover."""
    if not relational.get("interval"):
        return ""
    names = population_names(relational)
    ends = [f"{names[key]} {interval(found)}" for key, found in relational["interval"].items() if key in names]
    return (
        "95% intervals of the Pearson lift over every pair, by a bootstrap over synsets "
        f"({relational['replicates']:,} replicates): {', '.join(ends)}. They show how the lift would vary with "
        "other synsets, not with another seed."
    )


def caveats(report: Report) -> list[str]:
    """Limits of what the figures show, a sentence each."""
    lines = []
    run, relational, pentachoron = report["run"], report["relational"], report["pentachoron"]
    if run["outcome"] != "finished":
        lines.append(
            "The run did not end by itself: α is of its last step, every other figure of the last measurement before."
        )
    if relational.get("last") and relational.get("baseline"):
        lines.append(
            "A lift alone shows no knowledge. Compare it with controls that have as many parameters (shuffled or "
            "random geometry, LoRA, IA³; `python probe.py controls` runs them), and look at the held-out population, "
            "whose words were not trained on."
        )
        if relational.get("pairs") not in (None, "all"):
            lines.append(
                f"The relational figures are of a sample of {relational['pairs']:,} pairs; "
                "the noise of sampling may be as large as the lift."
            )
    if (monitored := run.get("monitor")) and includes_reported(monitored):
        lines.append(caveat(monitored))
    lines.append("This is one run with one seed: without others a small difference means nothing.")
    if far := report["model"]["describe"].get("far"):
        lines.append(f"{far}.")
    validation = report["loss"].get("validation") or {}
    if validation.get("first_step") and _first(validation) is not None:
        lines.append(
            "The validation loss before is the first that was measured, after "
            f"{counted(validation['first_step'] + 1, 'step')}."
        )
    if pentachoron.get("out_from_the_start"):
        lines.append(f"{str(pentachoron['out_from_the_start']).rstrip('.')}.")
    if pentachoron.get("last"):
        lines.append(
            "A CV near a reference says little by itself: a randomly initialised encoder can lie there too, so read it "
            "beside its z-score."
        )
    return lines


def what_ran(report: Report) -> Table:
    """Model, data, machine, versions and command."""
    run, model, environment = report["run"], report["model"], report["environment"]
    parameters = model["parameters"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items() if version)
    memory = report["memory"]["peak_resident_bytes"]
    cuda = report["memory"].get("peak_cuda_bytes")
    time = report["time"]
    per_epoch = time["per_epoch_s"]
    spent = report["relational"].get("seconds")
    described = {key: value for key, value in model["describe"].items() if key != "by_frequency"}  # has a table
    rows = [
        ["model", _plain(described) or str(model["module"])],
        ["parameters", f"{parameters['trainable']:,} trained, {parameters['frozen']:,} frozen"],
        ["speed", _speed(model["describe"])],
        ["data", _plain(report["data"])],
        ["seed", str(run["seed"]) if run["seed"] is not None else "not set"],
        [
            "time",
            duration(time["total_s"])
            + (f", {duration(sum(per_epoch) / len(per_epoch))} an epoch" if per_epoch else "")
            + (f", {duration(spent)} of it on the relational figures" if spent else ""),
        ],
        ["memory", f"{memory / 2**20:,.0f} MiB" + (f", {cuda / 2**20:,.0f} MiB on the accelerator" if cuda else "")],
        ["device", f"{environment['accelerator']} × {environment['devices']}, precision {environment['precision']}"],
        ["platform", environment["platform"]],
        ["versions", versions],
        ["command", f"`{' '.join(run['command'])}`"],
        *(
            [f"from step {part['from_step']:,}", f"`{' '.join(part['command'])}`, {part['config']}"]
            for part in run.get("parts", [])[1:]
        ),
    ]
    return Table(["", ""], [row for row in rows if row[1]], words=2)


def _speed(describe: Mapping[str, Any]) -> str:
    """What a token costs, of a model that says so.

    >>> _speed({"flops_per_token": 803328, "tokens_per_second": 9500})
    '9,500 tokens a second in training, 0.803 MFLOP a token (forward and backward)'
    """
    rate, flops = describe.get("tokens_per_second"), describe.get("flops_per_token")
    said = [f"{rate:,} tokens a second in training"] if rate else []
    said += [f"{flops / 1e6:.3g} MFLOP a token (forward and backward)"] if flops else []
    return ", ".join(said)


def _plain(values: Mapping[str, Any]) -> str:
    """Nested settings in one line.

    >>> _plain({"a": 1, "b": {"c": None, "d": [1, 2]}})
    'a 1; b: c none, d 1, 2'
    """

    def text(value: Any) -> str:
        if isinstance(value, Mapping):
            return ", ".join(f"{key} {text(inner)}" for key, inner in value.items())
        if isinstance(value, list | tuple) and len(value) > 10:
            return f"{', '.join(text(inner) for inner in value[:3])} … {text(value[-1])} ({len(value)} values)"
        if isinstance(value, list | tuple):
            return ", ".join(text(inner) for inner in value)
        if isinstance(value, bool) or value is None:
            return str(value).lower()
        return f"{value:g}" if isinstance(value, float) else str(value)

    return "; ".join(
        f"{key}: {text(value)}" if isinstance(value, Mapping) else f"{key} {text(value)}"
        for key, value in values.items()
    )
