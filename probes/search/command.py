"""A search of settings without an account: the sweep file of W&B, Optuna's suggestions, and train.py for each trial.

A trial is a run folder. What Optuna knows lies in a database beside them, so that a search that was stopped resumes: a
trial that was under way resumes from its checkpoint, with the settings that it had.
"""

import argparse
import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modulant.reports.wording import number
from probes.controls.plan import Run, State, clean, lock, report_of, resumption, state_of
from probes.controls.settings import Control, Options, read_options
from probes.options import at_least
from probes.search.space import REPORTED, Sweep, read_sweep

PASSES_ON = True  # options that are not our own go to every trial
DESCRIPTION = """\
Search settings: each trial trains with settings that Optuna's TPE suggests from what the trials before it have found.
SWEEP is a sweep file of Weights & Biases, the same that `wandb sweep` takes; nothing here asks W&B.

The same command resumes a search that was stopped, and a larger --trials adds to it.
Any option with a dot, such as --trainer.max_epochs 3, goes to every trial."""
EXAMPLES = """\
OUTPUT holds trial_<n>/seed_<seed>/ (a run folder) and .log beside it, search.db (Optuna's), and search.md, search.json
and search.png: every trial, the best one's command line, the history, and how much each setting mattered.

examples:
  python probe.py search configs/sweeps/field.yaml --trials 20
  python probe.py search configs/sweeps/field.yaml --trials 40 --trainer.max_epochs 5"""
DATABASE = "search.db"
_FIGURES = ("val/loss", "relational/pearson_lift", "relational/preservation", "pentachoron/cv", REPORTED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("sweep", metavar="SWEEP", help="a sweep file, such as configs/sweeps/field.yaml")
    add("--trials", type=at_least(1), default=20, metavar="N", help="in all, those that are there included (20)")
    add("--jobs", type=at_least(1), default=1, metavar="N", help="trials side by side (1: each learns from all before)")
    add("--seed", type=int, default=42, help="of the suggestions and of every trial's training (%(default)s)")
    add("--output", default=None, type=Path, metavar="DIR", help="OUTPUT (runs/search/<sweep>)")


def main(args: argparse.Namespace) -> int:
    """Search; 0 where there are as many trials as were asked for, 1 where one has failed, 128 + a signal that ended it.

    Raises:
        ValueError: something a user can mend, in one line, before anything has run.
    """
    sweep = read_sweep(args.sweep)
    options = read_options(args.options, ("trials", "jobs", "seed", "output"))
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ValueError("optuna is not installed; pip install 'modulant[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    output = args.output or Path("runs", "search", sweep.path.stem)
    with lock(output, DATABASE) as held:
        study = _study(optuna, sweep, output, args.seed, options)
        search = Search(sweep, study, output, args.seed, options)
        code = search.work(args.trials, args.jobs, held.fileno())
        from probes.search.page import write

        write(sweep, study, output, search.command_line)
    return code


def _study(optuna: Any, sweep: Sweep, output: Path, seed: int, options: Options) -> Any:
    """The study in OUTPUT's database, or a new one.

    Raises:
        ValueError: the trials that are there were of another search.
    """
    pruner = optuna.pruners.NopPruner()
    if sweep.min_checks is not None:
        pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=sweep.min_checks)
    study = optuna.create_study(
        storage=f"sqlite:///{output / DATABASE}",
        study_name="search",
        direction="maximize" if sweep.maximize else "minimize",
        pruner=pruner,
        load_if_exists=True,
    )
    # a sampler that began with the same seed again would suggest the same again
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), constant_liar=True)
    asked = json.loads(json.dumps({**sweep.describe(), "options": options, "seed": seed}))
    held = study.user_attrs.get("asked", asked)
    if held != asked:
        differs = ", ".join(key for key in asked if held.get(key) != asked[key])
        raise ValueError(f"--output: the trials in {output} were of another search ({differs} differ); name another")
    study.set_user_attr("asked", asked)
    return study


class Search:
    """The trials of a search.

    Args:
        sweep: what is searched.
        study: Optuna's.
        output: the folder.
        seed: of the training, the same in all trials, so that they differ in their settings alone.
        options: that go to every trial.
    """

    def __init__(self, sweep: Sweep, study: Any, output: Path, seed: int, options: Options) -> None:
        self.sweep, self.study, self.output, self.seed, self.options = sweep, study, output, seed, options
        self._trials: dict[Path, Any] = {}  # run folder → an Optuna trial that is under way
        self._given_up: set[Path] = set()  # that the pruner has ended

    def work(self, n: int, jobs: int, held: int) -> int:
        """Bring the search to `n` trials."""
        from probes.controls.runner import share, train

        runs = self._under_way() + [self._run(i) for i in range(len(self.study.trials), n)]
        if not runs:
            return 0
        slots = share(jobs, len(runs), {"accelerator": "auto", "devices": 1})
        return train(runs, n, slots, held, self._begin, self._outcome, {}, self._about, self._hopeless)[0]

    def command_line(self, params: Mapping[str, Any]) -> list[str]:
        """The command line of a training with these settings."""
        words = [*self.sweep.words, *(f"--{name}={value}" for name, value in self.options)]
        return [*words, *(f"--{name}={value}" for name, value in params.items()), f"--seed_everything={self.seed}"]

    def _run(self, i: int) -> Run:
        name = f"trial_{i:03d}"
        return Run(Control(name), self.seed, self.output / name / f"seed_{self.seed}")

    def _under_way(self) -> list[Run]:
        """The trials that a stopped search has left."""
        from optuna.trial import Trial, TrialState

        runs = []
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            run = self._run(frozen.number)
            self._trials[run.folder] = Trial(self.study, frozen._trial_id)
            runs.append(run)
        return runs

    def _begin(self, run: Run) -> list[str]:
        if run.folder not in self._trials:
            self._trials[run.folder] = self.study.ask()
        trial = self._trials[run.folder]
        params = {parameter.name: parameter.suggest(trial) for parameter in self.sweep.parameters}
        state = state_of(run)
        if state is State.BEGUN:
            return resumption(run)
        if state is State.FRESH:
            clean(run)
            return [*self.command_line(params), "--output", str(run.folder)]
        return [sys.executable, "-c", ""]  # it is whole, but the search was killed before Optuna knew

    def _about(self, run: Run) -> str:
        settings = self._trials[run.folder].params.items()
        return " with " + ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in settings)

    def _outcome(self, run: Run, code: int, stopping: bool) -> tuple[bool, str]:
        """Report a trial's end to Optuna."""
        from optuna.trial import TrialState

        from probes.controls.runner import unfinished

        trial, value, whole = self._trials[run.folder], _last(run, self.sweep.metric), state_of(run) is State.WHOLE
        if run.folder in self._given_up:
            self.study.tell(trial.number, state=TrialState.PRUNED)
            return True, "ended early, worse than the median"
        if whole and value is not None:
            for key in _FIGURES:
                if (figure := _last(run, key)) is not None:
                    trial.set_user_attr(key, figure)
            self.study.tell(trial.number, value)
            best = self.study.best_trial
            return True, f"{number(value, 4, True)}; best {number(best.value, 4, True)} (trial_{best.number:03d})"
        if not stopping:
            self.study.tell(trial.number, state=TrialState.FAIL)
        if whole:
            return False, f"failed (no {self.sweep.metric} in its report); {run.log}"
        return False, unfinished(run, code, stopping)

    def _hopeless(self, run: Run) -> bool:
        """Whether a running trial is worse than the median of those before it."""
        if self.sweep.min_checks is None or run.folder in self._given_up:
            return False
        trial = self._trials[run.folder]
        points = _series(run.folder / "metrics.csv", self.sweep.metric)
        known = trial.storage.get_trial(trial._trial_id).intermediate_values
        for i in range(len(known), len(points)):
            trial.report(points[i], i)
        if len(points) > len(known) and trial.should_prune():
            self._given_up.add(run.folder)
            return True
        return False


def _series(file: Path, key: str) -> list[float]:
    """A key's values so far, in order; a line that is being written is left out."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        return []
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    return [float(row[key]) for row in rows if row.get(key)]


def _last(run: Run, key: str) -> float | None:
    report = report_of(run) or {}
    value = report.get("run", {}).get("metrics", {}).get(key, {}).get("last")
    return None if value is None else float(value)
