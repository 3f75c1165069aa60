"""Table, effects and figures of the experiment, from all runs of its plan that have ended."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modulant.reports.drawing.chart import Axis, Band, Chart, Interval, Level, Line
from modulant.reports.table import Table
from modulant.reports.wording import counted, interval, number, short
from probes.controls.plan import report_of
from probes.options import with_bar
from probes.pages import as_csv_text, write_text
from probes.waves.arms import BASELINE, FACTORS, LINES, PHASORLESS, WAVE, WAVE_ATTENTION, WAVE_EMBEDDING
from probes.waves.effects import SMALLEST, Effect, factorial, paired
from probes.waves.plan import Training, levels_of
from probes.waves.testing import tested
from probes.waves.tuning import LENGTH, WEIGHTS
from wavegpt.training.quality import DECILES

if TYPE_CHECKING:
    from probes.waves.command import Experiment

By = Mapping[str, Mapping[int, dict[str, Any]]]  # arm → seed → what was measured
_CURVES = {BASELINE: ("table, RoPE", "@ink"), WAVE_EMBEDDING: ("wave, RoPE", "@blue"),
           WAVE_ATTENTION: ("table, interference", "@vermilion"), WAVE: ("wave, interference", "@green")}  # fmt: skip
_VERDICT_COLOURS = {"better": "@green", "worse": "@vermilion"}
_CHOICES = ("settings", "lrs", "tuning", "whole", "lambdas", "weights", "pace")  # of the record
_TITLE = "Waves beside their controls"


def write(experiment: "Experiment", trainings: Sequence[Training]) -> None:
    """Test what has ended and write the report; nothing where no run has."""
    by = _measured(experiment, trainings)
    if not by:
        return
    from probes.battery import publish

    groups = _effects(experiment, by)
    found = _found(experiment, by, groups)
    rows = [_row(experiment, name, seeds) for name, seeds in by.items()]
    write_text(experiment.plan.output / "arms.csv", as_csv_text(rows))
    content = {
        "title": _TITLE, "lead": _lead(experiment, by),
        "finding": _finding(groups), "verdicts": list(_verdicts(groups)),
        "sections": _sections(experiment, rows, groups), "method": list(_method(experiment)),
    }  # fmt: skip
    publish(experiment.plan.output, found, list(_charts(experiment, by, groups)), content, ", arms.csv")


def _measured(experiment: "Experiment", trainings: Sequence[Training]) -> By:
    ended = [t for t in trainings if math.isfinite(experiment.bits(t))]
    by: dict[str, dict[int, dict[str, Any]]] = {}
    for training in with_bar(ended, "test"):
        report = report_of(training.run)
        assert report is not None
        found = tested(training.run.folder, experiment.data, experiment.device)
        about = report["model"]["describe"]
        by.setdefault(training.arm.name, {})[training.run.seed] = found | {
            "lr": training.lr, "weight": training.weight, "steps": report["run"]["steps"],
            "flops": about.get("flops_per_token"), "speed": about.get("tokens_per_second"),
            "memory": report["memory"].get("peak_cuda_bytes") or report["memory"].get("peak_resident_bytes"),
            "curve": str(training.run.folder / "metrics.csv"),
        }  # fmt: skip
    order = [arm for arm in experiment.plan.design.arms if arm in by]
    return {arm: by[arm] for arm in order}


def _bits(seeds: Mapping[int, Mapping[str, Any]]) -> dict[int, float]:
    return {seed: found["bits_per_byte"] for seed, found in seeds.items()}


def _effects(experiment: "Experiment", by: By) -> dict[str, list[Effect]]:
    """Of the factorial under its name, and of each line."""
    groups: dict[str, list[Effect]] = {}
    cells = {levels: _bits(seeds) for name, seeds in by.items() if (levels := levels_of(name)) is not None}
    if len(cells) == 2 ** len(FACTORS):
        groups["factorial"] = factorial(cells, list(FACTORS))
    for line in experiment.plan.design.lines:
        arms = [arm for arm in experiment.plan.design.of_line(line) if arm.name in by and arm.reference in by]
        if arms:
            groups[line] = paired(
                {arm.name: _bits(by[arm.name]) for arm in arms}, {arm.name: _bits(by[arm.reference]) for arm in arms}
            )
    return groups


def _found(experiment: "Experiment", by: By, groups: Mapping[str, Sequence[Effect]]) -> dict[str, Any]:
    """What report.json holds; `figures` is flat."""
    figures: dict[str, float | None] = {}
    for name, seeds in by.items():
        figures[f"arms/{name}/bits_per_byte"] = statistics.fmean(_bits(seeds).values())
    for group, effects in groups.items():
        for effect in effects:
            start = f"{group}/{effect.name.replace(' × ', '_by_')}"
            parts = {"difference": effect.mean, "low": effect.interval[0], "high": effect.interval[1],
                     "p": effect.p, "p_holm": effect.p_holm}  # fmt: skip
            figures |= {f"{start}/{key}": value if math.isfinite(value) else None for key, value in parts.items()}
    for decile, (mean, sd) in _deciles(by).items():
        start = f"deciles/{decile:02d}/rank_minus_shuffled"
        figures |= {start: mean, f"{start}_sd": sd}
    measured = {name: {str(seed): found for seed, found in seeds.items()} for name, seeds in by.items()}
    return {"probe": "waves", "figures": figures, "arms": measured, "parameters": experiment.counts,
            **{key: experiment.record.get(key) for key in _CHOICES}}  # fmt: skip


def _deciles(by: By) -> dict[int, tuple[float, float | None]]:
    """Nats a token, rank minus shuffled, by tenth of the vocabulary that occurs: mean and sd over seeds."""
    rank, shuffled = by.get(WAVE_EMBEDDING, {}), by.get("mass-shuffled", {})
    found: dict[int, tuple[float, float | None]] = {}
    for decile in range(1, DECILES + 1):
        key = f"by_frequency/decile_{decile:02d}/nats_per_token"
        own = {seed: rank[seed][key] - shuffled[seed][key] for seed in {*rank} & {*shuffled} if key in rank[seed]}
        if own:
            values = list(own.values())
            found[decile] = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
    return found


# Words and tables


def _lead(experiment: "Experiment", by: By) -> str:
    sizes, plan = experiment.plan.sizes, experiment.plan
    baseline = _bits(by.get(BASELINE, {}))
    said = f" The baseline has {_spread(list(baseline.values()))} bits per byte." if baseline else ""
    runs = sum(map(len, by.values()))
    return (
        f"{counted(runs, 'run')} of {counted(len(by), 'arm')} on {plan.corpus}: {sizes.d_model} wide, {sizes.layers} "
        f"layers, context {sizes.context}, {sizes.steps:,} steps of {sizes.batch_tokens:,} tokens, "
        f"{short(experiment.total)} parameters in every arm. Differences are in bits per byte on the test part; below "
        f"0 is better.{said}"
    )


def _finding(groups: Mapping[str, Sequence[Effect]]) -> str:
    """How many comparisons came out for a part of the wave model, in one sentence."""
    verdicts = [effect.verdict for effects in groups.values() for effect in effects]
    better, worse = (verdicts.count(word) for word in ("better", "worse"))
    return (
        f"Of {counted(len(verdicts), 'comparison')} with a control, {better} came out better and {worse} worse; of the "
        f"other {len(verdicts) - better - worse} no difference that matters is shown."
    )


def _verdicts(groups: Mapping[str, Sequence[Effect]]) -> Iterator[str]:
    questions = {
        "factorial": {"embedding": "wave embedding", "attention": "interference attention",
                      "optimizer": "projected optimizer", "loss": "coherence losses"},
        "mass": {"mass-shuffled": "shuffled ranks against true ones",
                 "mass-factorised": "a factorised table against waves"},
        "loss": {"loss-phase": "the phase term alone", "loss-energy": "the energy term alone",
                 "loss-normed_table": "a normed table, without any term"},
        "phase": {"phase-fixed": "fixed phases against phases integrated from content",
                  "phase-rope_with_locality": "RoPE with the same locality prior against interference"},
    }  # fmt: skip
    for group, names in questions.items():
        for effect in groups.get(group, ()):
            if (words := names.get(effect.name)) is not None:
                yield f"{words}: {_said(effect)}: {effect.verdict}"


def _said(effect: Effect) -> str:
    ends = interval(effect.interval, 3) if math.isfinite(sum(effect.interval)) else "one seed"
    return f"{number(effect.mean, 3, True)} {ends}"


def _probability(p: float) -> str:
    return "< 0.01" if p < 0.005 else number(p, 2)


def _spread(values: Sequence[float]) -> str:
    sd = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{sd}"


def _row(experiment: "Experiment", name: str, seeds: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    bits, any_seed, counts = list(_bits(seeds).values()), next(iter(seeds.values())), experiment.counts[name]
    speeds = [found["speed"] for found in seeds.values() if found["speed"]]
    return {
        "arm": name, "bits_per_byte": statistics.fmean(bits),
        "sd": statistics.stdev(bits) if len(bits) > 1 else None, "seeds": len(bits), "lr": any_seed["lr"],
        "weight": any_seed["weight"] or None, "steps": any_seed["steps"], "parameters": counts["total"],
        "embedding": counts["embedding"], "flops_per_token": any_seed["flops"],
        "tokens_per_second": statistics.median(speeds) if speeds else None,
        "memory_bytes": max(found["memory"] or 0 for found in seeds.values()) or None,
    }  # fmt: skip


def _sections(
    experiment: "Experiment", rows: Sequence[Mapping[str, Any]], groups: Mapping[str, Sequence[Effect]]
) -> dict[str, Table]:
    sections = {}
    for group, effects in groups.items():
        heading = "Effects of the factorial" if group == "factorial" else f"Line {group}: {LINES[group]}"
        arms = experiment.plan.design.arms
        against = [arms[e.name].reference if e.name in arms else "" for e in effects]
        if (first := against[0]) and len(set(against)) == 1:
            heading += f"; against {first}"
            against = [""] * len(effects)
        sections[heading] = Table(
            ["", "difference", "95% interval", "bootstrap", "p", "p (Holm)", "verdict"],
            [
                [f"{e.name} − {other}" if other else e.name, number(e.mean, 3, True),
                 *(interval(i, 3) if math.isfinite(sum(i)) else "–"
                 for i in (e.interval, e.bootstrap)), _probability(e.p), _probability(e.p_holm), e.verdict]
                for e, other in zip(effects, against, strict=True)
            ],
        )  # fmt: skip
    sections["Arms"] = Table(
        ["arm", "bits per byte", "sd", "seeds", "lr", "λ", "steps", "parameters", "in embedding", "FLOPs a token",
         "tokens a second", "peak memory"],
        [
            [row["arm"], f"{row['bits_per_byte']:.3f}", "–" if row["sd"] is None else f"{row['sd']:.3f}",
             str(row["seeds"]), f"{row['lr']:g}", f"{row['weight']:g}" if row["weight"] else "–", f"{row['steps']:,}",
             f"{row['parameters']:,}", f"{row['embedding']:,}",
             short(row["flops_per_token"]) if row["flops_per_token"] else "–",
             f"{row['tokens_per_second']:,.0f}" if row["tokens_per_second"] else "–",
             f"{row['memory_bytes'] / 2**20:,.0f} MiB" if row["memory_bytes"] else "–"]
            for row in rows
        ],
    )  # fmt: skip
    return sections


def _method(experiment: "Experiment") -> Iterator[str]:
    plan = experiment.plan
    yield from (
        "An effect of the factorial is the mean difference between two levels over all others; of two factors, how "
        "much larger the effect of the first is at the upper level of the second. p-values by least squares with seeds "
        "as blocks, for main effects and two-way interactions, with Holm's correction over all ten. Intervals by "
        "Student's t over seeds.",
        "A line is compared with its reference seed by seed; Holm's correction is over the line.",
        f"The smallest effect of interest is {SMALLEST:g} bits per byte: an interval inside ± that is called no "
        "difference, one that holds 0 and reaches further undecided.",
        f"Learning rates: five points, each twice the one before, on one seed and {LENGTH:.0%} of the steps, by bits "
        "per byte on the validation part; two more where the best is at an edge. The best is then compared with its "
        "neighbours over whole runs, for as long as one is better. λ of phase and energy together: of "
        f"{', '.join(f'{w:g}' for w in WEIGHTS)} on the short runs, two more where the best is at an edge.",
        "Equal in all arms: tokens, steps, batches and their order (by seed), schedule, warm-up, clipping at norm 1, "
        "no dropout, no weight decay, and parameters to 1%, by the width of the MLP. Documents are split once.",
        f"The test part, {plan.held_out:.0%} of the documents, is read once, in windows that do not overlap; nats of "
        "marks between documents count, their bytes do not. Intervals are over seeds, not over documents.",
        PHASORLESS + ".",
    )
    yield from experiment.unequal()


# Charts


def _charts(experiment: "Experiment", by: By, groups: Mapping[str, Sequence[Effect]]) -> Iterator[Chart]:
    axis = Axis("difference in bits per byte; below 0 is better")
    for group, effects in groups.items():
        what = "Effects of the factorial" if group == "factorial" else f"Line {group}, against its reference"
        counted_ = [f"{sum(e.verdict == verdict for e in effects)} {verdict}" for verdict in _VERDICT_COLOURS]
        title = f"{what}: {', '.join(counted_)}, of {len(effects)}"
        marks = [
            Interval(e.mean, e.interval if math.isfinite(sum(e.interval)) else (e.mean, e.mean), e.name,
                     _VERDICT_COLOURS.get(e.verdict, "@ink"), list(e.seeds.values()))
            for e in effects
        ]  # fmt: skip
        reading = "a row is a part or a control, its line the interval. Left of 0 it helps, right of 0 it hurts."
        names = Axis(names=[e.name for e in effects])
        yield Chart(f"effects_{group}", title, {"": marks}, names, axis, reading=reading)
    if (chart := _curves(by)) is not None:
        yield chart
    if (chart := _sweeps(experiment)) is not None:
        yield chart
    if deciles := _deciles(by):
        points = [(float(decile), mean) for decile, (mean, _) in deciles.items()]
        band = [(float(decile), m - sd, m + sd) for decile, (m, sd) in deciles.items() if sd is not None]
        marks_: list[Any] = [Level(0.0, "no difference", "@grey"), Line(points, "mean over seeds", "@blue")]
        if band:
            marks_.append(Band(band, "± sd over seeds", "@blue"))
        yield Chart(
            "deciles", "True ranks minus shuffled ones, by frequency of the token", {"": marks_},
            Axis("nats a token; below 0 is better"), Axis("tenth of the vocabulary by frequency", whole=True),
            reading="common tokens are left, rare ones right; below 0 the true ranks help there.",
        )  # fmt: skip


def _curves(by: By) -> Chart | None:
    from modulant.reports.series import read_metrics

    lines = []
    for name, (label, colour) in _CURVES.items():
        runs = [read_metrics(Path(found["curve"])).get("train/loss", []) for found in by.get(name, {}).values()]
        points = [
            (float(steps[0]), statistics.fmean(values))
            for row in zip(*runs, strict=False)
            for steps, values in [tuple(zip(*row, strict=True))]
        ]
        if points:
            lines.append(Line(points, label, colour))
    if not lines:
        return None
    return Chart(
        "curves", "Loss while training, mean over seeds (AdamW, cross-entropy)", {"": lines}, Axis("nats a token"),
        reading="a line is a model; the lower, the better it predicts the text that it is trained on.",
    )  # fmt: skip


def _sweeps(experiment: "Experiment") -> Chart | None:
    """Bits per byte over the learning rate, of the four models under AdamW: short runs and whole ones."""
    lines = []
    for name, (label, colour) in _CURVES.items():
        for key, what, dash in (("tuning", "", "dot"), ("whole", ", whole runs", "solid")):
            found = experiment.record.get(key, {}).get(name, {})
            points = [(math.log2(float(lr)), bits) for lr, bits in found.items() if bits is not None]
            if points:
                lines.append(Line(points, label + what, colour, dash=dash))
    if not lines:
        return None
    return Chart("tuning", f"Sweeps of the learning rate: {LENGTH:.0%} of the steps, and whole runs", {"": lines},
                 Axis("bits per byte on the validation part"), Axis("log₂ of the learning rate"),
                 reading="the lowest point of a solid line is the rate that its model was given.")  # fmt: skip
