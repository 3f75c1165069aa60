"""The fair experiment on the wave language model and its controls: plan, equal tuning, paired seeds, effects.

The order of work: check the command line, lock OUTPUT, prepare the corpus, match parameters, write the plan; sweep
learning rates and λ; train every arm with every seed; test each once; write tables and figures.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from probes.configurations import ROOT
from probes.controls.plan import State, clean, lock, report_of, resumption, state_of
from probes.controls.settings import read_options, read_seeds
from probes.options import at_least, some_of
from probes.pages import write_text
from probes.waves.arms import BASELINE, LINES
from probes.waves.plan import (
    RECORD,
    SCALES,
    Plan,
    Training,
    command,
    finals,
    grid_of,
    make,
    planned,
    rates,
    weights,
)
from probes.waves.tuning import FACTOR, WEIGHT_FACTOR, WEIGHTS, best, extension, neighbours

PASSES_ON = True  # options that are not our own go to every run
SEEDS = "0,1,2,3,4"
_SIZES = ("d_model", "layers", "heads", "context", "vocab_size", "waves", "batch_tokens", "steps")
DESCRIPTION = f"""\
Does a part of the wave language model do anything? Train the arms of a factorial (embedding × attention × optimizer ×
loss) and lines on which one thing changes, each with an equally tuned learning rate, with as many parameters and tokens
as the baseline, on the same batches seed by seed. The table has effects in bits per byte on the test part, which
is read once: 95% intervals over seeds, p-values with Holm's correction, and below 0 is better.

The same command resumes what was stopped; more seeds and lines into the same OUTPUT are welcome.
Any option with a dot, such as --trainer.precision bf16-mixed, goes to every run.

scales: {
    "; ".join(
        f"{name}: {s.about} ({s.sizes.d_model} wide, {s.sizes.layers} layers, {s.sizes.steps:,} steps)"
        for name, s in SCALES.items()
    )
}"""
EXAMPLES = f"""\
lines:
{chr(10).join(f"  {name:<10} {what}" for name, what in LINES.items())}

OUTPUT holds plan.md, written before anything trains; tuning/ and <arm>/seed_<seed>/ (run folders) with .yaml and .log
beside them; report.json, report.md, report.html and figures/.

examples:
  python probe.py waves --plan
  python probe.py waves
  python probe.py waves --lines mass --no-factorial --seeds 0,1,2,3,4,5,6,7
  python probe.py waves --scale gpu --corpus kjv --jobs 8 --trainer.precision bf16-mixed"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--scale", choices=tuple(SCALES), default="cpu", help="sizes by name (%(default)s)")
    for name in _SIZES:
        add(f"--{name.replace('_', '-')}", type=at_least(1), default=None, metavar="N", help="instead of the scale's")
    add("--seeds", default=SEEDS, metavar="S,S,…", help="one run of every arm for each (%(default)s)")
    add("--lines", type=some_of((*LINES, "none")), default=None, metavar="LINE,…", help="lines to run (the scale's)")
    add("--arms", type=_words, default=(), metavar="ARM,…", help="of the lines these alone, by the names of --plan")
    add("--no-factorial", action="store_true", help="lines and their references alone")
    add("--corpus", default="wordnet", help="as data.corpus: wordnet, kjv, a file or folder, a hub id (%(default)s)")
    add("--tokenizer", default="bpe", help="as data.tokenizer (%(default)s)")
    add("--held-out", type=float, default=0.02, metavar="SHARE", help="of documents, for validation and for the test")
    add("--jobs", type=at_least(1), metavar="N", help="runs side by side (one a CUDA device, else one a core)")
    add("--plan", action="store_true", help="print the plan and train nothing")
    add("--output", default=None, type=Path, metavar="DIR", help="OUTPUT (runs/waves/<scale>)")


def main(args: argparse.Namespace) -> int:
    """Run the experiment; 0 where every run is whole, 1 where one is not, 128 + the signal that ended it.

    Raises:
        ValueError: something a user can mend, in one line, before anything has run.
    """
    plan = read(args)
    if args.plan:
        print("\n".join(planned(plan)))
        return 0
    with lock(plan.output, RECORD) as held:
        return Experiment(plan, args.jobs, held.fileno()).work()


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def read(args: argparse.Namespace) -> Plan:
    """The plan of a command line.

    Raises:
        ValueError: something a user can mend, in one line.
    """
    from datamodules.arguments import check_corpus, check_fractions, check_text_vocabulary, check_windows

    sizes = {name: getattr(args, name) for name in _SIZES if getattr(args, name) is not None}
    own = (
        "scale",
        "seeds",
        "lines",
        "arms",
        "no-factorial",
        "corpus",
        "tokenizer",
        "held-out",
        "jobs",
        "plan",
        "output",
    )
    options = read_options(args.options, (*own, *(name.replace("_", "-") for name in _SIZES)))
    output = args.output or Path("runs", "waves", args.scale)
    lines = () if args.lines == ("none",) else args.lines
    if "none" in (lines or ()):
        raise ValueError("--lines: none stands alone")
    plan = make(
        args.scale, read_seeds(args.seeds), not args.no_factorial, lines, sizes, args.corpus, args.tokenizer,
        options, args.held_out, output, args.arms,
    )  # fmt: skip
    if len(plan.design.arms) < 2:
        raise ValueError("--no-factorial: nothing is compared without a line; name some by --lines")
    check_fractions(args.held_out, args.held_out)
    check_windows(plan.sizes.context, plan.sizes.batch_tokens)
    check_text_vocabulary(args.tokenizer, plan.sizes.vocab_size)
    check_corpus(args.corpus)
    return plan


class Experiment:
    """The work on a plan; what was chosen on the way is in OUTPUT's record.

    Args:
        plan: what is to be run.
        jobs: runs side by side; None: as many as run well.
        held: OUTPUT's lock, which the runs keep.
    """

    def __init__(self, plan: Plan, jobs: int | None, held: int) -> None:
        self.plan, self.jobs, self.held = plan, jobs, held
        self.path = plan.output / RECORD
        self.record: dict[str, Any] = {}
        if self.path.is_file():
            try:
                self.record = dict(json.loads(self.path.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{self.path} cannot be read ({error}); name another --output") from error
        self._check()

    def _check(self) -> None:
        now = json.loads(json.dumps(self.plan.settings))
        before = self.record.get("settings", now)
        if changed := [key for key in now if before.get(key) != now[key]]:
            said = ", ".join(f"{key} {before.get(key)}, not {now[key]}" for key in changed[:3])
            raise ValueError(f"--output: the runs in {self.plan.output} have {said}; name another --output")

    def work(self) -> int:
        """All of it; the exit code of `main`."""
        from probes.waves import matching, report

        self.data = self._prepared()
        vocab_size = self.data.tokenizer.vocab_size  # of little text fewer than were asked for
        arms = self.plan.design.arms
        configs = {name: replace(arm.config, vocab_size=vocab_size) for name, arm in arms.items()}
        self.total = matching.parameters(configs[BASELINE])["total"]
        self.configs = {name: matching.matched(config, self.total) for name, config in configs.items()}
        self.counts = {name: dict(matching.parameters(config)) for name, config in self.configs.items()}
        self._note(settings=self.plan.settings)
        lines = [*planned(self.plan), *self.unequal()]
        write_text(self.plan.output / "plan.md", "# The plan\n\n" + "\n".join(f"- {line}" for line in lines) + "\n")
        print("\n".join(lines), flush=True)
        code, lrs = self._rates()
        if code:
            return code
        code, lambdas = self._weights(lrs)
        if code:
            return code
        trainings = finals(self.plan, lrs, lambdas, self._pace())
        code = self._train(trainings)
        report.write(self, trainings)
        return code

    def _prepared(self) -> Any:
        """The corpus, tokenised once for all runs."""
        from datamodules import TextDataModule

        data = TextDataModule(**self.plan.data())
        data.prepare_data()
        data.setup()
        return data

    def unequal(self) -> list[str]:
        """Lines about arms whose parameters could not be matched."""
        from probes.waves.matching import unmatched

        totals = {name: count["total"] for name, count in self.counts.items()}
        return [
            f"{name} has {totals[name]:,} parameters, the baseline {self.total:,}: more than 1% apart, since its "
            "other parts leave no room for an MLP"
            for name in unmatched(totals, BASELINE)
        ]

    def _note(self, **facts: Any) -> None:
        self.record |= facts
        write_text(self.path, json.dumps(self.record, indent=2, ensure_ascii=False) + "\n")

    # The three stages

    def _rates(self) -> tuple[int, dict[str, float]]:
        """Sweep the learning rates over short runs, and compare the best with its neighbours over whole ones."""
        arms = self.plan.tuned
        short = {arm.name: rates(self.plan, arm, grid_of(arm)) for arm in arms}
        if code := self._extended(short, lambda name, lrs: rates(self.plan, self.plan.design.arms[name], lrs), FACTOR):
            return code, {}
        started = {name: self._best(sweep) for name, sweep in short.items()}
        whole: dict[str, list[Training]] = {arm.name: [] for arm in arms}
        while True:
            more = {
                arm.name: neighbours({t.lr: self.bits(t) for t in whole[arm.name]}, started[arm.name]) for arm in arms
            }
            if not any(more.values()):
                break
            for arm in arms:
                whole[arm.name] += rates(self.plan, arm, more[arm.name], whole=True)
            if code := self._train([training for sweep in whole.values() for training in sweep]):
                return code, {}
        chosen = {name: self._best(sweep) for name, sweep in whole.items()}
        self._note(
            tuning=self.record.get("tuning", {}) | {name: self._swept(sweep) for name, sweep in short.items()},
            whole=self.record.get("whole", {}) | {name: self._swept(sweep) for name, sweep in whole.items()},
            lrs=self.record.get("lrs", {}) | chosen,
        )
        return 0, chosen

    def _weights(self, lrs: Mapping[str, float]) -> tuple[int, dict[str, float]]:
        """Sweep λ for every arm whose loss has terms, and choose."""
        arms = {arm.name: arm for arm in self.plan.design.arms.values() if arm.terms}

        def sweep_of(name: str, lambdas: Sequence[float]) -> list[Training]:
            return weights(self.plan, arms[name], lrs[arms[name].tuning], lambdas)

        sweeps = {name: sweep_of(name, WEIGHTS) for name in arms}
        if code := self._extended(sweeps, sweep_of, WEIGHT_FACTOR):
            return code, {}
        chosen = {name: self._best(sweep) for name, sweep in sweeps.items()}
        kept = {name: self._swept(sweep) for name, sweep in sweeps.items()}
        self._note(lambdas=self.record.get("lambdas", {}) | chosen, weights=self.record.get("weights", {}) | kept)
        return 0, chosen

    def _extended(
        self, sweeps: dict[str, list[Training]], more: Callable[[str, Sequence[float]], list[Training]], factor: float
    ) -> int:
        """Train sweeps, and two more of each whose best is at an edge; the exit code."""
        if code := self._train([training for sweep in sweeps.values() for training in sweep]):
            return code
        for name, sweep in sweeps.items():
            sweep += more(name, extension(self._by_value(sweep), factor))
        return self._train([training for sweep in sweeps.values() for training in sweep])

    def _by_value(self, sweep: Sequence[Training]) -> dict[float, float]:
        """λ, where the sweep is one of λ, else the learning rate → bits per byte."""
        return {training.weight or training.lr: self.bits(training) for training in sweep}

    def _best(self, sweep: Sequence[Training]) -> float:
        try:
            return best(self._by_value(sweep))
        except ValueError as error:
            raise ValueError(f"{sweep[0].arm.name}: {error}; leave the arm out") from error

    def _swept(self, sweep: Sequence[Training]) -> dict[str, float | None]:
        """What was swept → bits per byte, for JSON; None where it diverged."""
        found = sorted(self._by_value(sweep).items())
        return {f"{value:g}": bits if math.isfinite(bits) else None for value, bits in found}

    def _pace(self) -> dict[str, float]:
        """Steps of the arms that have as many seconds as the baseline, measured once for OUTPUT."""
        arms = self.plan.design.of_line("seconds")
        known: dict[str, float] = self.record.get("pace", {})
        if missing := [arm for arm in arms if arm.name not in known]:
            from probes.waves.matching import pace

            configs = {arm.name: self.configs[arm.name] for arm in missing} | {BASELINE: self.configs[BASELINE]}
            rows = self.plan.sizes.batch_tokens // self.plan.sizes.context
            known = known | pace(configs, BASELINE, rows, self.device)
            self._note(pace=known)
        return {arm.name: known[arm.name] for arm in arms}

    @property
    def device(self) -> Any:
        """For the test, and for how long a step takes: where the runs train."""
        import torch

        accelerator = dict(self.plan.options).get("trainer.accelerator", "auto")
        cuda = torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda")
        return torch.device("cuda" if cuda else "cpu")

    # Runs

    def bits(self, training: Training) -> float:
        """Bits per byte on the validation part at a run's end; infinite where it diverged, NaN where it did not end."""
        if not self._settled(training):
            return math.nan
        report = report_of(training.run)
        assert report is not None
        if _diverged(report):
            return math.inf
        return float(report["run"]["metrics"]["val/bits_per_byte"]["last"])

    def _train(self, trainings: Sequence[Training]) -> int:
        """Train what is left of some runs; 0 where all have ended or diverged."""
        from probes.controls.runner import share, train, unfinished

        left = [training for training in trainings if not self._settled(training)]
        if not left:
            return 0
        by_run = {training.run: training for training in left}
        accelerator = dict(self.plan.options).get("trainer.accelerator", "auto")
        trainer = {"max_steps": max(t.steps for t in left), "devices": 1, "accelerator": accelerator}
        python = [sys.executable, str(ROOT / "train.py")]

        def begin(run: Any) -> list[str]:
            if state_of(run) is State.BEGUN:
                return resumption(run)
            clean(run)
            training = by_run[run]
            return command(self.plan, training, self.configs[training.arm.name], python)

        def outcome(run: Any, code: int, stopping: bool) -> tuple[bool, str]:
            if not self._settled(by_run[run]):
                return False, unfinished(run, code, stopping)
            bits = self.bits(by_run[run])
            return True, f"{bits:.4f} bits per byte" if math.isfinite(bits) else "diverged"

        slots = share(self.jobs, len(left), trainer)
        return train([t.run for t in left], len(trainings), slots, self.held, begin, outcome, trainer)[0]

    def _settled(self, training: Training) -> bool:
        if state_of(training.run) is State.WHOLE:
            return True
        report = report_of(training.run)
        return report is not None and _diverged(report)


def _diverged(report: Mapping[str, Any]) -> bool:
    return report["run"]["outcome"] == "failed" and str(report["stop"]["reason"]).startswith("DivergenceError")
