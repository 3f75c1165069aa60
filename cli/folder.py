"""The run folder: chosen early, created once the configuration is valid, removed again if nothing is left in it."""

import os
import shutil
from pathlib import Path

from cli.command import Command

RUNS = Path("runs")
# Set for the processes that Lightning starts for further devices, which run the command line again. It begins with the
# number of the process that set it, so that only its children use it.
VARIABLE = "MODULANT_RUN"
_LOGGERS = ("tensorboard", "tensorboard_validate", "tensorboard_test", "wandb")  # may be there before the first figure


class RunFolder:
    """Where a command writes.

    Attributes:
        path: the folder; a default one is numbered when it is claimed.
    """

    def __init__(self, command: Command) -> None:
        self._named = command.output or command.resume
        self._family = RUNS / command.run_name()
        self.path = self._named or self._family / "version_<n>"
        self._created: list[Path] = []  # outermost first
        self._parent = _parents_folder()
        _check_place(self._named or self._family)
        if command.subcommand == "fit" and command.resume is None and self._parent is None:
            _check_holds_no_run(self.path)

    def claim(self) -> Path:
        """Create the folder, or its next version, and pass its path to the processes that are started from here.

        Raises:
            ValueError: it cannot be written.
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
            probe = self.path / f".writable-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            reason = error.strerror or str(error)
            raise ValueError(f"--output: {self.path} cannot be written ({reason}); name one that can") from error
        os.environ[VARIABLE] = f"{os.getpid()}:{self.path}"
        return self.path

    def release(self) -> None:
        """Stop passing the path to new processes."""
        if os.environ.get(VARIABLE, "").startswith(f"{os.getpid()}:"):
            del os.environ[VARIABLE]

    def discard_if_empty(self) -> None:
        """Remove what `claim` created, if it holds nothing but configuration."""
        if self.path in self._created and self.path.is_dir():
            kept = (e for e in self.path.iterdir() if e.name not in _LOGGERS and not _is_config(e))
            if next(kept, None) is not None:
                return
            shutil.rmtree(self.path, ignore_errors=True)
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
        if must_be_new or not folder.exists():
            folder.mkdir()
            self._created.append(folder)


def _is_config(path: Path) -> bool:
    return path.is_file() and path.name.startswith("config") and path.suffix == ".yaml"


def _check_place(folder: Path) -> None:
    """Refuse a folder that cannot be created, without creating it."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise ValueError(f"--output: {folder} cannot be a folder, as {nearest} is a file; name one that can")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"--output: {folder} cannot be written, as {nearest} forbids it; name one that can")


def _check_holds_no_run(folder: Path) -> None:
    held = sorted((folder / "checkpoints").glob("*.ckpt"))
    if held:
        raise ValueError(
            f"--output: {folder} already holds checkpoints ({held[-1].name}); name another folder, or resume that run "
            f"with --resume {folder}"
        )


def _parents_folder() -> Path | None:
    """The folder of the process that started this one, if that was a run of ours."""
    number, _, folder = os.environ.get(VARIABLE, "").partition(":")
    return Path(folder) if folder and number == str(os.getppid()) else None


def is_child() -> bool:
    """Whether a run of ours has started this process for a further device."""
    return _parents_folder() is not None


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
