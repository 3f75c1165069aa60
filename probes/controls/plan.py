"""The runs of a command: their command lines, their folders, what has become of each, and what OUTPUT remembers.

A run is one control with one seed. The split of the data is the same in all, and so are the bootstrap's resamples, so
that differences are paired; the seed goes to the order of the data and to whatever is drawn before training.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Any

from probes.controls.settings import ROOT, Asked, Control, Options
from probes.pages import write_text

TRAIN = ROOT / "train.py"
MEMORY = "controls.json"
BUDGET = ("--pentachoron.stop", "false")  # a run that stops early has had another budget
# Options that a seed goes to, where a configuration has them.
SEED_OPTIONS = (
    "seed_everything", "data.order_seed", "model.seed", "model.modulator.init_args.seed", "model.geometry.seed",
)  # fmt: skip


class State(Enum):
    WHOLE = "whole"
    BEGUN = "begun"  # has a checkpoint to go on from
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


def runs_of(asked: Asked, output: Path) -> list[Run]:
    """Seed by seed, the treatment first in each: whatever is there when the command is stopped can be compared."""
    return [Run(c, s, output / c.name / f"seed_{s}") for s in asked.seeds for c in asked.controls]


def fit(asked: Asked, control: Control) -> list[str]:
    """The command line that all runs of a control share."""
    words = [sys.executable, str(TRAIN), "fit"]
    for path in (*asked.configs, *control.configs):
        words += ["--config", str(path)]
    through: Options = tuple(option for option in asked.options if control.lets_through(option[0]))
    words += [f"--{name}={value}" for name, value in (*through, *control.options)]
    return [*words, *BUDGET]


def command(asked: Asked, run: Run, seeded: Sequence[str], n_parameters: int | None) -> list[str]:
    """How a run begins.

    Args:
        seeded: those of `SEED_OPTIONS` that its configuration has.
        n_parameters: that the treatment trains; an adapter is made to match it.
    """
    words = fit(asked, run.control)
    if run.control.is_adapter:
        assert n_parameters is not None
        words.append(f"--model.n_parameters={n_parameters}")
    return [*words, *(f"--{name}={run.seed}" for name in seeded), "--output", str(run.folder)]


def resumption(run: Run) -> list[str]:
    """How a run that was interrupted goes on: by the configuration that it has saved."""
    return [sys.executable, str(TRAIN), "fit", "--resume", str(run.folder)]


def state_of(run: Run) -> State:
    """What has become of a run, by what its folder holds."""
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
    """Whether a checkpoint is the one that the SHA-256 beside it speaks of, as train.py asks before it goes on."""
    digests = checkpoint.with_name(f"{checkpoint.name}.sha256")
    if not digests.is_file():
        return False
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return any(line.split()[:1] == [digest] for line in digests.read_text(errors="replace").splitlines())


def clean(run: Run) -> None:
    """Take away what a run has left that cannot be gone on with."""
    if run.folder.exists():
        shutil.rmtree(run.folder)
    run.folder.parent.mkdir(parents=True, exist_ok=True)


def trained_parameters(runs: Sequence[Run]) -> int | None:
    """How many parameters a control trains, as soon as one of its runs has said so."""
    reports = (report_of(run) for run in runs)
    return next((int(report["model"]["parameters"]["trainable"]) for report in reports if report is not None), None)


def lock(output: Path, memory: str = MEMORY) -> IO[str]:
    """Keep other commands out of OUTPUT for as long as this process, or a run that inherits the file, lives.

    Args:
        output: the folder.
        memory: the file by which a folder of such a command is known.

    Raises:
        ValueError: OUTPUT is no folder for runs, or another command is at work in it.
    """
    nearest = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise ValueError(f"--output: {output} cannot be a folder, as {nearest} is a file; name one that can")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"--output: {output} cannot be written, as {nearest} forbids it; name one that can")
    if output.is_dir() and not (output / memory).is_file() and any(e.name != ".lock" for e in output.iterdir()):
        raise ValueError(f"--output: {output} holds other files and no {memory}; name a folder of its own")
    output.mkdir(parents=True, exist_ok=True)
    file = (output / ".lock").open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ValueError(f"--output: another command, or a run that it has left, is at work in {output}") from error
    return file


class Memory:
    """controls.json: the settings that all runs of a folder share, and every control and seed it was asked for.

    Args:
        output: the folder.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / MEMORY
        self.held: dict[str, Any] = {}
        if self.path.is_file():
            try:
                self.held = dict(json.loads(self.path.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{self.path} cannot be read ({error}); name another --output") from error

    def check(self, asked: Asked) -> None:
        """Raises:
        ValueError: the folder's runs have other settings; the first that differ are named.
        """
        if not self.held:
            return
        name = asked.controls[0].name
        if self.held["treatment"] != name:
            raise ValueError(
                f"--output: {self.path.parent} is about {self.held['treatment']}, not {name}; name another"
            )
        self._compare("", self.held["settings"], asked.settings)
        for control in asked.controls:
            if control.name in self.held["decides"]:
                self._compare(f"{control.name}: ", self.held["decides"][control.name], control.decides or {})

    def _compare(self, whose: str, held: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        now = json.loads(json.dumps(now, default=str))
        keys = [key for key in sorted({*held, *now}) if not _same(held.get(key), now.get(key))]
        if keys:
            said = ", ".join(f"{whose}{key} {_typed(held.get(key))}, not {_typed(now.get(key))}" for key in keys[:3])
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise ValueError(f"--output: the runs in {self.path.parent} have {said}{more}; name another --output")

    def write(self, asked: Asked, checked: Mapping[str, Any]) -> None:
        """Remember a command beside those before it.

        Args:
            checked: what is to be known of the configurations, by control.
        """
        decides = {control.name: dict(control.decides or {}) for control in asked.controls}
        self.held = {
            "treatment": asked.controls[0].name,
            "settings": dict(asked.settings),
            "decides": {**self.held.get("decides", {}), **decides},
            "seeds": sorted({*self.held.get("seeds", []), *asked.seeds}),
            "checked": {**self.held.get("checked", {}), **checked},
        }
        text = json.dumps(self.held, indent=2, ensure_ascii=False, default=str) + "\n"
        write_text(self.path, text)

    def runs(self) -> list[Run]:
        """Every run that this folder was ever asked for, control by control."""
        output = self.path.parent
        return [
            Run(Control(name), seed, output / name / f"seed_{seed}")
            for name in self.held["decides"]
            for seed in self.held["seeds"]
        ]


def _same(a: Any, b: Any) -> bool:
    """YAML reads 1e-3 as a text, and 1.0e-3 as a number."""
    try:
        return float(a) == float(b) and isinstance(a, bool) == isinstance(b, bool)
    except (TypeError, ValueError):
        return bool(a == b)


def _typed(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
