"""The run folder: chosen early, created once the configuration is valid, removed again if nothing is left in it."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from cli.command import Command
from cli.configuration import schema
from cli.configuration.files import read_yaml
from modulant.storage.lock import LOCK, FolderLock, LockedError, holder
from modulant.storage.places import check_place, held, some

RUNS = Path("runs")
# Set for the processes that Lightning starts for further devices, which run the command line again. It begins with the
# number of the process that set it, so that only its children use it.
VARIABLE = "MODULANT_RUN"
# Where launchers say which of a run's processes this one is: the first holds the folder's lock for all.
_RANKS = (
    "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK",
    "JSM_NAMESPACE_RANK",
)  # fmt: skip
_TRIAL = ".writable-"  # files that a process creates and removes at once
_LOGGERS = ("tensorboard", "tensorboard_validate", "tensorboard_test", "wandb")  # may be there before the first figure


class RunFolder:
    """Where a command writes.

    Attributes:
        path: the folder; a default one is numbered when it is claimed.

    Raises:
        ValueError: it cannot be written, holds other files or another run, or another process is at work in it.
    """

    def __init__(self, command: Command) -> None:
        self._command = command
        self._named = command.output or command.resume
        self._family = RUNS / command.run_name()
        self.path = self._named or self._family / "version_<n>"
        self._created: list[Path] = []  # outermost first
        self._was_empty = False
        self._lock: FolderLock | None = None
        self._parent = _parents_folder()
        check_place(self._named or self._family)
        if self._parent is None and self._named is not None:
            if (who := holder(self._named, "" if is_first() else _job())) is not None:
                raise ValueError(self._in_use(who))
            self._check(self._named)

    def claim(self) -> Path:
        """Create the folder, or its next version, lock it, and pass its path to processes that are started from here.

        Raises:
            ValueError: it cannot be written, or another process was faster.
        """
        try:
            if self._parent is not None:
                self.path = self._parent
            elif self._named is not None:
                self._make(self._named)
            elif (job := _launchers_job()) is not None:
                self.path = self._family / f"version_{job}"
                self.path.mkdir(parents=True, exist_ok=True)  # all of a job's processes do this at once
            else:
                self._make_next_version()
            if self._parent is None and is_first():
                self._hold()
            probe = self.path / f"{_TRIAL}{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            reason = error.strerror or str(error)
            raise ValueError(f"--output: {self.path} cannot be written ({reason}); name one that can") from error
        os.environ[VARIABLE] = f"{os.getpid()}:{self.path}"
        return self.path

    def _hold(self) -> None:
        try:
            self._lock = FolderLock(self.path, _job())
        except LockedError as error:
            raise ValueError(self._in_use(str(error))) from error
        if self._lock.refused is not None:
            print(f"{self.path} cannot be locked ({self._lock.refused}); start no second run in it", file=sys.stderr)
        if self._named is not None:
            self._check(self._named)  # once more: another run may have come and gone during the imports
        self._was_empty = all(entry.name == LOCK or _is_trial(entry) for entry in self.path.iterdir())

    def _check(self, folder: Path) -> None:
        resume = self._command.resume
        if not folder.is_dir() or (resume is not None and folder.samefile(resume)):
            return
        _check_is_ours(folder)
        if self._command.subcommand == "fit":
            _check_holds_no_run(folder)

    def _in_use(self, who: str) -> str:
        option = "--output" if self._command.output is not None or self._command.resume is None else "--resume"
        wait = "wait until it ends, or end it"
        if self._command.resume is not None and self._command.subcommand != "fit":
            wait = "to measure the run meanwhile, name another folder with --output"
        return f"{option}: another command is at work in {self.path} ({who}); {wait}"

    def release(self) -> None:
        """Unlock the folder, and stop passing its path to new processes."""
        if self._lock is not None:
            self._lock.release()
        if os.environ.get(VARIABLE, "").startswith(f"{os.getpid()}:"):
            del os.environ[VARIABLE]

    def give_up(self) -> None:
        """Leave the folder as it was found, where nothing of worth is in it."""
        self.discard_if_empty()
        self.release()

    def discard_if_empty(self) -> None:
        """Remove what the run has left where the folder was new or empty, if that is nothing but configuration."""
        if self._was_empty and self.path.is_dir():
            entries = list(self.path.iterdir())
            if any(e.name not in (LOCK, *_LOGGERS) and not _is_config(e) for e in entries):
                return
            for entry in entries:
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)
        for folder in reversed(self._created):
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:  # another run is in it by now
                return

    def expected(self) -> Path:
        """The folder that `claim` would create now."""
        return self.path if self._named or self._parent else self._next_version()

    def _next_version(self) -> Path:
        taken = [int(path.name[8:]) for path in self._family.glob("version_*") if path.name[8:].isdigit()]
        return self._family / f"version_{max(taken, default=-1) + 1}"

    def _make_next_version(self) -> None:
        while True:
            self.path = self._next_version()
            try:
                self._make(self.path, must_be_new=True)
                return
            except FileExistsError:  # another run created it a moment ago
                continue

    def _make(self, folder: Path, must_be_new: bool = False) -> None:
        for ancestor in reversed(folder.parents):
            if not ancestor.exists():
                ancestor.mkdir(exist_ok=True)
                self._created.append(ancestor)
        try:
            folder.mkdir()
            self._created.append(folder)
        except FileExistsError:
            if must_be_new or not folder.is_dir():
                raise


def _is_config(path: Path) -> bool:
    return path.is_file() and path.name.startswith("config") and path.suffix == ".yaml"


def _check_is_ours(folder: Path) -> None:
    """Refuse a folder whose files are nobody's of ours: a run would write its report.md, figures/, … over them."""
    names = [name for name in held(folder) if not name.startswith(_TRIAL)]
    if not names or LOCK in names or any(_is_a_runs(file) for file in folder.glob("config*.yaml")):
        return
    raise ValueError(
        f"--output: {folder} holds other files ({some(names)}) and no run; name an empty folder, or a new one"
    )


def _is_a_runs(file: Path) -> bool:
    """Whether a file is the configuration that a run has saved; other programs write a config.yaml too."""
    try:
        model = read_yaml(file).get("model") if file.is_file() else None
    except ValueError:
        return False
    name = str(model.get("class_path")) if isinstance(model, Mapping) else ""
    return name in schema.load()["$defs"] or name.startswith("modulators.")


def _is_trial(path: Path) -> bool:
    return path.name.startswith(_TRIAL)


def _check_holds_no_run(folder: Path) -> None:
    checkpoints = sorted((folder / "checkpoints").glob("*.ckpt"))
    if checkpoints:
        raise ValueError(
            f"--output: {folder} already holds checkpoints ({checkpoints[-1].name}); name another folder, or resume "
            f"that run with --resume {folder}"
        )


def _parents_folder() -> Path | None:
    """The folder of the process that started this one, if that was a run of ours."""
    number, _, folder = os.environ.get(VARIABLE, "").partition(":")
    return Path(folder) if folder and number == str(os.getppid()) else None


def is_child() -> bool:
    """Whether a run of ours has started this process for a further device."""
    return _parents_folder() is not None


def is_first() -> bool:
    """Whether this is the process that writes for all of its run."""
    return all((os.environ.get(name) or "0") == "0" for name in _RANKS)


def _job() -> str:
    """What a launcher calls its job; "" where none started this process."""
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        return f"torchrun {environment['TORCHELASTIC_RUN_ID']}"
    if "SLURM_JOB_ID" in environment:
        return f"SLURM {environment['SLURM_JOB_ID']}.{environment.get('SLURM_STEP_ID', '0')}"
    return ""


def _launchers_job() -> str | None:
    """A name that all processes of a job agree on, where a launcher has started several at once.

    Raises:
        ValueError: a launcher that gives its job no name.
    """
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment and int(environment.get("WORLD_SIZE", "1")) > 1:
        if environment["TORCHELASTIC_RUN_ID"] == "none":
            raise ValueError("--output: torchrun's processes need one folder; name one, or give --rdzv-id")
        return environment["TORCHELASTIC_RUN_ID"]
    if "SLURM_PROCID" in environment and int(environment.get("SLURM_NTASKS", "1")) > 1:
        return f"{environment['SLURM_JOB_ID']}_{environment.get('SLURM_STEP_ID', '0')}"
    return None
