"""Weights & Biases logger that never fails a run.

W&B is configured to be silent: no prompts on a terminal, no capture of the console, of git or of the command line
(which may contain secrets); a run is described by its configuration and its report.
"""

import json
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from modulant.settings import Pattern, checked
from modulant.storage import write_whole

Mode = Literal["online", "offline", "disabled"]
# What W&B refuses, by its client or its server, once a run has begun.
Project = Annotated[str, Pattern(r"[^/\\#?%:]{1,128}", r"text of 1 to 128 characters, none of them / \ # ? % :")]
Entity = Annotated[str, Pattern(r"[\w.-]{1,128}", "text of letters, digits and - _ .")]
Name = Annotated[str, Pattern(r".{1,128}", "text of 1 to 128 characters")]
Tag = Annotated[str, Pattern(r".{1,64}", "text of 1 to 64 characters")]

STEP = "trainer/global_step"
IDENTITY = "run.json"  # in the run folder's wandb/
# Seconds to wait for an unresponsive service at the start and at the end of a run. Both are below the 30 seconds that a
# signalled run has to exit.
_INIT_S, _FINISH_S = 15, 20


class RunWandb(WandbLogger):
    """Lightning's W&B logger, in the run folder; a failure prints one line on stderr.

    If the service cannot be reached or there is no API key, the run is logged offline, to be uploaded with `wandb
    sync`. A resumed training resumes its W&B run.

    Args:
        project: where the run appears.
        mode: ``online``; ``offline`` keeps the run in its folder; ``disabled`` logs nothing; null: what WANDB_MODE
            says, else online.
        entity: a user or a team; null: the account's own.
        name: of the run; null: its folder's.
        group: of runs that belong together; null: none.
        tags: of the run.

    Raises:
        ValueError: wandb is not installed, or an argument is none that W&B takes.
    """

    @checked
    def __init__(
        self,
        project: Project = "modulant",
        mode: Mode | None = None,
        entity: Entity | None = None,
        name: Name | None = None,
        group: Name | None = None,
        tags: list[Tag] | None = None,
    ) -> None:
        try:
            super().__init__(project=project, name=name, entity=entity, group=group, tags=tags)
        except ModuleNotFoundError as error:
            raise ValueError("trainer.logger: wandb is not installed; pip install 'modulant[wandb]'") from error
        self._mode = mode
        self._stage = "fit"
        self._failed = False

    def set_run_folder(self, folder: str, stage: str, resumed: bool) -> None:
        """Set the run folder, before anything is logged.

        Args:
            folder: the run folder.
            stage: fit, validate or test; an evaluation is a separate W&B run, as its values are not points of the
                training's curves.
            resumed: whether the run in the folder is resumed.
        """
        self._stage = stage
        self._wandb_init |= {
            "dir": folder,
            "name": self._wandb_init["name"] or run_name(Path(folder)),
            "job_type": stage,
        }
        self._save_dir = folder
        if stage == "fit" and resumed:
            self._wandb_init["id"] = self._id = _read_id(Path(folder) / "wandb" / IDENTITY)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B run, started on first use."""
        if self._experiment is None:
            self._experiment = self._begin()
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.attempt(lambda: WandbLogger.log_metrics(self, metrics, step))

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        self.attempt(lambda: WandbLogger.log_hyperparams(self, params))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Finish the W&B run, as failed if the run failed; later logging starts it again."""
        run, self._experiment = self._experiment, None
        if run is not None:
            self.attempt(lambda: run.finish(exit_code=0 if status == "success" else 1))

    def attempt(self, action: Callable[[], Any]) -> None:
        """Run an action on W&B; its first failure is reported, and further actions are skipped."""
        if self._failed:
            return
        try:
            action()
        except Exception as error:
            self._failed = True
            _warn(f"{_line(error)}; this run is no longer logged there, only in metrics.csv")

    def _begin(self) -> Any:
        import wandb

        mode: str = self._mode or os.environ.get("WANDB_MODE", "online")
        mode = {"dryrun": "offline", "run": "online", "shared": "online"}.get(mode, mode)
        try:
            return self._init(mode)
        except Exception as error:
            if mode != "online":
                raise
            _warn(f"{_line(error)}; the run is kept in {self._save_dir}/wandb, for wandb sync")
            wandb.teardown()
            return self._init("offline")

    def _init(self, mode: str) -> Any:
        import wandb

        settings = wandb.Settings(
            init_timeout=_INIT_S,
            finish_timeout=_FINISH_S,
            login_timeout=1,  # on a terminal W&B would prompt for a key
            quiet=True,
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_meta=True,
        )
        arguments = self._wandb_init | {"mode": mode, "settings": settings, "anonymous": None}
        if mode != "online":
            arguments["resume"] = None  # resuming needs the service; wandb sync merges runs by id
        run = wandb.init(**{key: value for key, value in arguments.items() if value is not None})
        if mode == "disabled":
            return run
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        if self._stage == "fit":
            identity = {"id": run.id, "project": run.project, "entity": run.entity or None, "mode": mode}
            write_whole(Path(str(self._save_dir)) / "wandb" / IDENTITY, json.dumps(identity, indent=2) + "\n")
        self._id = run.id
        where = run.url if mode == "online" else f"{_shown(Path(run.dir).parent)} (offline)"
        print(f"W&B: {where}", flush=True)
        return run


def run_name(folder: Path) -> str:
    """Name of a run folder, with its parent's if it is numbered; without slashes, as an artifact's alias requires.

    >>> run_name(Path("runs/field/version_3")), run_name(Path("runs/mine"))
    ('field-version_3', 'mine')
    """
    folder = folder.absolute()
    name = f"{folder.parent.name}-{folder.name}" if folder.name.startswith("version_") else folder.name
    return re.sub(r"[^\w.-]+", "-", name)


def _read_id(file: Path) -> str | None:
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["id"])
    except (OSError, ValueError, KeyError, TypeError):  # the run was not logged to W&B, or the file is damaged
        return None


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _warn(text: str) -> None:
    print(f"warning: W&B: {text}", file=sys.stderr, flush=True)
