"""The runs of a command: command lines, folders, states, and the record that OUTPUT keeps.

A run is one control with one seed. All share the split of the data and the bootstrap's resamples, so that differences
are paired. The seed sets the order of the data and whatever is drawn before training.
"""

import fcntl
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Any

from modulant.storage import sha256_of
from modulant.storage.places import check_place
from probes.configurations import ROOT
from probes.controls.settings import OF_A_RUN, Control, Options, Request
from probes.pages import write_text

TRAIN = ROOT / "train.py"
RECORD = "controls.json"
BUDGET = ("--pentachoron.stop", "false")  # a run that stops early has had another budget
# Options that a seed goes to, where a configuration has them.
SEED_OPTIONS = (
    "seed_everything", "data.order_seed", "model.seed", "model.modulator.init_args.seed", "model.geometry.seed",
    "model.objective.init_args.seed",
)  # fmt: skip


class State(Enum):
    WHOLE = "whole"
    BEGUN = "begun"  # has a checkpoint to resume from
    FRESH = "fresh"


@dataclass(frozen=True)
class Run:
    """A control with a seed.

    Attributes:
        folder: the run folder.
    """

    control: Control
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.control.name} seed {self.seed}"

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")


def runs_of(request: Request, output: Path) -> list[Run]:
    """Seed by seed, the treatment first in each: whatever is there when the command is stopped can be compared."""
    return [Run(c, s, _folder(output, c.name, s, request.of)) for s in request.seeds for c in request.controls]


def _folder(output: Path, name: str, seed: int, of: Path | None) -> Path:
    """Where a run is; of controls of a run that was there before, the treatment is that run."""
    return of if of is not None and name == OF_A_RUN else output / name / f"seed_{seed}"


def fit(request: Request, control: Control) -> list[str]:
    """The command line that all runs of a control share."""
    words = [sys.executable, str(TRAIN), "fit"]
    for path in (*request.configs, *control.configs):
        words += ["--config", str(path)]
    through: Options = tuple(option for option in request.options if control.lets_through(option[0]))
    words += [f"--{name}={value}" for name, value in (*through, *control.options)]
    if request.of is not None:
        words += _at_the_end(request.settings)
    return [*words, *BUDGET]


def _at_the_end(settings: Mapping[str, Any]) -> list[str]:
    """Options for a run of which only the end is wanted."""
    epochs, steps = settings.get("trainer.max_epochs"), settings.get("trainer.max_steps", -1)
    words = ["--relational.baselines=false"]
    if isinstance(epochs, int) and epochs > 0 and steps in (-1, None):
        words.append(f"--trainer.check_val_every_n_epoch={epochs}")
    return words


def command(request: Request, run: Run, seeded: Sequence[str], n_parameters: int | None) -> list[str]:
    """The command line that starts a run.

    Args:
        seeded: those of `SEED_OPTIONS` that its configuration has.
        n_parameters: that the treatment trains; an adapter is made to match it.
    """
    words = fit(request, run.control)
    if run.control.is_adapter:
        assert n_parameters is not None
        words.append(f"--model.n_parameters={n_parameters}")
    return [*words, *(f"--{name}={run.seed}" for name in seeded), "--output", str(run.folder)]


def resumption(run: Run) -> list[str]:
    """The command line that resumes a run, by the configuration that it has saved."""
    return [sys.executable, str(TRAIN), "fit", "--resume", str(run.folder)]


def state_of(run: Run) -> State:
    """The state of a run, by what its folder holds."""
    report = report_of(run)
    ended = report is not None and report["run"]["outcome"] == "finished"
    if ended:
        return State.WHOLE
    if (run.folder / "config.yaml").is_file() and any(map(verifies, run.folder.glob("checkpoints/*.ckpt"))):
        return State.BEGUN
    return State.FRESH


def report_of(run: Run) -> dict[str, Any] | None:
    """report.json of a training, if there is one that can be read."""
    try:
        report = json.loads((run.folder / "report.json").read_text(encoding="utf-8"))
        return dict(report) if report["run"]["stage"] == "fit" and report["run"]["outcome"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def verifies(checkpoint: Path) -> bool:
    """Whether a checkpoint has the SHA-256 in the file beside it, as train.py requires to resume."""
    digests = checkpoint.with_name(f"{checkpoint.name}.sha256")
    if not digests.is_file():
        return False
    digest = sha256_of(checkpoint)
    return any(line.split()[:1] == [digest] for line in digests.read_text(errors="replace").splitlines())


def clean(run: Run) -> None:
    """Remove what a run has left that cannot be resumed."""
    if run.folder.exists():
        shutil.rmtree(run.folder)
    run.folder.parent.mkdir(parents=True, exist_ok=True)


def trained_parameters(runs: Sequence[Run]) -> int | None:
    """How many parameters a control trains, by the first report of its runs; None without one."""
    reports = (report_of(run) for run in runs)
    return next((int(report["model"]["parameters"]["trainable"]) for report in reports if report is not None), None)


def lock(output: Path, record: str = RECORD) -> IO[str]:
    """Lock OUTPUT for as long as this process, or a run that inherits the file, lives.

    Args:
        output: the folder.
        record: the file by which a folder of such a command is known.

    Raises:
        ValueError: OUTPUT is no folder for runs, or another command is at work in it.
    """
    check_place(output)
    if output.is_dir() and not (output / record).is_file() and any(e.name != ".lock" for e in output.iterdir()):
        raise ValueError(f"--output: {output} holds other files and no {record}; name a folder of its own")
    output.mkdir(parents=True, exist_ok=True)
    file = (output / ".lock").open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ValueError(f"--output: another command, or a run that it has left, is at work in {output}") from error
    return file


class Record:
    """controls.json: the settings that all runs of a folder share, and its controls and seeds so far.

    Args:
        output: the folder.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / RECORD
        self.held: dict[str, Any] = {}
        if self.path.is_file():
            try:
                self.held = dict(json.loads(self.path.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{self.path} cannot be read ({error}); name another --output") from error

    def check(self, request: Request) -> None:
        """Compare a command with those before it.

        Raises:
            ValueError: the folder's runs have other settings; the first that differ are named.
        """
        if not self.held:
            return
        name = request.controls[0].name
        if self.held["treatment"] != name:
            raise ValueError(
                f"--output: {self.path.parent} is about {self.held['treatment']}, not {name}; name another"
            )
        self._compare("", self.held["settings"], request.settings)
        for control in request.controls:
            if control.name in self.held["decides"]:
                self._compare(f"{control.name}: ", self.held["decides"][control.name], control.decides or {})

    def _compare(self, whose: str, held: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        now = json.loads(json.dumps(now, default=str))
        keys = [key for key in sorted({*held, *now}) if not _same(held.get(key), now.get(key))]
        if keys:
            said = ", ".join(f"{whose}{key} {_typed(held.get(key))}, not {_typed(now.get(key))}" for key in keys[:3])
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise ValueError(f"--output: the runs in {self.path.parent} have {said}{more}; name another --output")

    def write(self, request: Request, checked: Mapping[str, Any]) -> None:
        """Add a command to those before it.

        Args:
            checked: what is to be known of the configurations, by control.
        """
        decides = {control.name: dict(control.decides or {}) for control in request.controls}
        self.held = {
            "treatment": request.controls[0].name,
            "of": None if request.of is None else str(request.of.resolve()),
            "settings": dict(request.settings),
            "decides": {**self.held.get("decides", {}), **decides},
            "seeds": sorted({*self.held.get("seeds", []), *request.seeds}),
            "checked": {**self.held.get("checked", {}), **checked},
        }
        text = json.dumps(self.held, indent=2, ensure_ascii=False, default=str) + "\n"
        write_text(self.path, text)

    def runs(self) -> list[Run]:
        """Every run of all commands so far, control by control."""
        output = self.path.parent
        of = Path(self.held["of"]) if self.held.get("of") else None
        return [
            Run(Control(name), seed, _folder(output, name, seed, of))
            for name in self.held["decides"]
            for seed in self.held["seeds"]
        ]


def _same(a: Any, b: Any) -> bool:
    """Equal, also where YAML has read one as a text (1e-3) and the other as a number (1.0e-3)."""
    try:
        return float(a) == float(b) and isinstance(a, bool) == isinstance(b, bool)
    except (TypeError, ValueError):
        return bool(a == b)


def _typed(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
