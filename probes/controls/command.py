"""Is a lift real? Trains a modulator and its controls over several seeds, and compares them in one table.

The order of work: check the command line, lock OUTPUT, let train.py check the configurations, train what is not whole
yet, write table and figures from all runs that are.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from modulant.reports.wording import number
from probes.configurations import leaves, read_yaml, setting
from probes.controls.plan import (
    RECORD,
    SEED_OPTIONS,
    Record,
    Run,
    State,
    clean,
    command,
    fit,
    lock,
    resumption,
    runs_of,
    state_of,
    trained_parameters,
)
from probes.controls.settings import SEEDS, Control, Request, of_run, read
from probes.options import at_least
from probes.pages import write_json, write_text

PASSES_ON = True  # options that are not our own go to every run
DESCRIPTION = """\
Train the modulator of a configuration and its controls over several seeds, each run a process of its own, and write
one table and one figure: lift on the three populations with 95% intervals, validation loss, preservation, CV, final α.

The same command resumes what was stopped; more seeds, controls or alphas into the same OUTPUT are welcome.
Any option with a dot, such as --trainer.max_epochs 3, goes to every run (python train.py fit --help lists them)."""
EXAMPLES = """\
controls:
  of the relational objective: taxonomy_shuffled, taxonomy_part_of_speech, taxonomy_random, full
  with LERP:      shuffled, random, part_of_speech, no_geometry, training_anchors, fixed_alpha, lora, lora_slow
  with the field: features_linear, features_random, features_constant and gate_source where its gate is centred;
                  fixed_alpha, lora, ia3
  Each is configs/controls/<name>.yaml, and says there what it is. LoRA and IA³ need peft. They and full train on the
  configuration's kind of backbone: a T5, an encoder or a causal model.

OUTPUT holds <control>/seed_<seed>/ (a run folder, as train.py leaves it) and .log beside it; controls.md, controls.csv,
controls.png and .svg, figures.json; and controls.json, the settings of all runs. With --keep, --epochs or several α
also front.png and .svg: lift against preservation, a line for each method and for the treatment over epochs and over α,
and against changes of SimLex-999 and WordSim-353 where measured.

examples:
  python probe.py controls --config lerp.yaml
  python probe.py controls --of runs/field/version_0 --controls taxonomy_shuffled,lora
  python probe.py controls --config field.yaml --seeds 0,1,2,3,4 --controls fixed_alpha,lora --jobs 2
  python probe.py controls --config field.yaml --controls fixed_alpha --alphas 0.01,0.05,0.1,0.5
  python probe.py controls --config field.yaml --controls lora,ia3 --keep 0,0.3,2,4
  python probe.py controls --config field.yaml --controls fixed_alpha --epochs 1,5,30 --alphas 0.05,0.1
  python probe.py controls --config lerp.yaml --config debug.yaml --seeds 0,1 --output runs/controls/a_look"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--config",
        "-c",
        action="append",
        default=[],
        metavar="FILE",
        help="the treatment; of several, later ones override",
    )
    add("--of", type=Path, metavar="RUN", help="controls of a run that is there, into RUN/controls, and into its page")
    add("--seeds", default=SEEDS, metavar="S,S,…", help="one run of everything for each (%(default)s)")
    add("--controls", default=None, metavar="NAME,NAME,…", help="which controls (all that apply to the modulator)")
    add("--alphas", default="", metavar="A,A,…", help="further controls: the treatment at each fixed α")
    add("--epochs", default="", metavar="E,E,…", help="further rows: the treatment trained for each number of epochs")
    add("--keep", default="", metavar="K,K,…", help="fronts: treatment, LoRA, IA³, full at each λ_keep too")
    add("--jobs", type=at_least(1), metavar="N", help="runs side by side (one a CUDA device, else one a core)")
    add("--output", default=None, type=Path, metavar="DIR", help="OUTPUT (runs/controls/<configuration>)")


def main(args: argparse.Namespace) -> int:
    """Run the command; 0 where every run is whole, 1 where one is not, 128 + the signal that ended it.

    Raises:
        ValueError: something a user can mend, in one line, before anything has run.
    """
    request = read(args)
    return work(request, args.output, args.jobs)


def of_trained(run: Path, names: str) -> int:
    """Train controls of a run that has ended, into its folder and its page; the exit code of `main`."""
    return work(of_run(run, leaves(read_yaml(run / "config.yaml")), names), None, None)


def work(request: Request, output: Path | None, jobs: int | None) -> int:
    """Train what is left of a request, and write its table; as `main`."""
    if request.of is not None:
        if output is not None:
            raise ValueError("--output: the controls of a run lie in its own folder; leave it out")
        output = request.of / "controls"
        if state_of(runs_of(request, output)[0]) is not State.WHOLE:
            raise ValueError(f"--of: {request.of} has not finished; resume it, with --resume {request.of}")
    output = output or Path("runs", "controls", request.controls[0].name)
    created = [folder for folder in (output, *output.parents) if not folder.exists()]
    with lock(output) as held:
        try:
            record = Record(output)
            record.check(request)
            runs = runs_of(request, output)
            left = [run for run in runs if state_of(run) is not State.WHOLE]
            for line in request.left_out:
                print(f"note: {line}")
            record.write(request, _checked(request, record, left))
        except BaseException:
            if created and not (output / RECORD).is_file():
                (output / ".lock").unlink(missing_ok=True)
                for folder in created:
                    folder.rmdir()
            raise
        code = _work(request, record, len(runs), left, jobs, held.fileno()) if left else 0
        _write(record)
        return code


def _checked(request: Request, record: Record, left: Sequence[Run]) -> dict[str, Any]:
    """Let train.py check the configurations of the runs that are left; return what is needed of each.

    A control of the treatment's own class differs from it in values alone, so one check stands for all of those.
    """
    known = record.held.get("checked", {})
    treatment, *others = request.controls
    running = {run.control.name for run in left}
    ask = [c for c in (treatment, *others) if c is treatment or (c.method and c.name in running)]
    ask = [control for control in ask if running and control.name not in known]
    if ask:
        print(f"checking {', '.join(control.name for control in ask)}", flush=True)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return dict(zip((control.name for control in ask), pool.map(partial(_check, request), ask), strict=True))


def _check(request: Request, control: Control) -> dict[str, Any]:
    """Check one configuration; return where its seeds are and what it takes of the machine."""
    sizes = ["--model.n_parameters=10000"] if control.is_adapter else []
    words = [*fit(request, control), *sizes, "--print_config"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise ValueError(f"{control.name}: {lines[-1].removeprefix('error: ')}")
    config = yaml.safe_load(done.stdout)
    settings = leaves(config)
    return {
        "seeded": [name for name in SEED_OPTIONS if setting(name) in settings],
        "trainer": {key: config["trainer"].get(key) for key in ("accelerator", "devices", "max_epochs", "max_steps")},
    }


def _work(request: Request, record: Record, total: int, left: list[Run], jobs: int | None, held: int) -> int:
    from probes.controls.runner import share, train, unfinished

    treatment = request.controls[0].name
    checked = record.held["checked"]
    trainer = checked[treatment]["trainer"]
    treated = [run for run in record.runs() if run.control.name == treatment]

    def begin(run: Run) -> list[str] | None:
        n_parameters = trained_parameters(treated) if run.control.is_adapter else None
        if run.control.is_adapter and n_parameters is None:
            return None
        if state_of(run) is State.BEGUN:
            return resumption(run)
        clean(run)
        # Controls of a run that was there before have its seeds, in its configuration.
        seeded = [] if request.of else checked[run.control.name if run.control.method else treatment]["seeded"]
        return command(request, run, seeded, n_parameters)

    def outcome(run: Run, code: int, stopping: bool) -> tuple[bool, str]:
        return (True, _found(run)) if state_of(run) is State.WHOLE else (False, unfinished(run, code, stopping))

    code, never = train(left, total, share(jobs, len(left), trainer), held, begin, outcome, trainer)
    for run in never:
        print(f"{run.name} was not started: no run of {treatment} says how many parameters to match", file=sys.stderr)
    return code


def _found(run: Run) -> str:
    """A run in a few figures."""
    from modulant.reports.populations import in_short
    from probes.controls.measure import measure, names_of

    measured = measure(run)
    assert measured is not None
    held_out = in_short(names_of([measured]))
    named = (("validation_loss", "loss", False), ("pearson_lift/all", "lift", True),
             ("pearson_lift/held_out", f"on {held_out}", True), ("alpha", "α", False))  # fmt: skip
    parts = [f"{name} {number(measured.figures[key], 4, sign)}" for key, name, sign in named if key in measured.figures]
    return ", ".join(parts) or "ended"


def _write(record: Record) -> None:
    """Table and figures of every run that is whole, this command's or an earlier one's."""
    from probes.controls import table
    from probes.controls.fronts import with_fronts
    from probes.controls.measure import measure, original_figures, summarise

    output, runs = record.path.parent, record.runs()
    measured = [found for run in runs if (found := measure(run)) is not None]
    treatment = record.held["treatment"]
    summary = with_fronts(summarise(measured, treatment, original_figures(runs)), measured)
    whole = {(found.control, found.seed) for found in measured}
    missing = [f"{run.name}: {run.log}" for run in runs if (run.control.name, run.seed) not in whole]
    drawn = _draw(summary, output) if measured else []
    summary = summary | {"verdicts": table.verdicts(summary)} if measured else summary
    write_text(output / "controls.md", table.markdown(summary, missing, drawn))
    write_text(output / "controls.csv", table.as_csv(summary))
    write_json(output / "figures.json", summary)
    of = record.held.get("of")
    if of is not None and measured:  # the run's own page has them too
        from probes.report import write_pages

        write_pages(Path(of), output)
    for line in summary.get("verdicts", ()):
        print(line)
    print(f"{output / 'controls.md'}{''.join(f', {output / name}' for name in drawn)}")


def _draw(summary: Mapping[str, Any], output: Path) -> list[str]:
    from probes.controls import figure as figures

    drawn = []
    all_figures = {"controls.png": figures.forest, "front.png": figures.front, "alphas.png": figures.sweep}
    for name, draw in all_figures.items():
        if (figure := draw(summary)) is not None:
            figures.save(figure, output / name)
            drawn.append(name)
    return drawn
