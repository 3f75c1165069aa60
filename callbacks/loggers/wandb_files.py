"""Upload a run's configuration, figures, report and modulator to W&B."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import yaml
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.loggers.wandb import STEP, RunWandb, run_name

_REPORT = ("report{}.md", "report{}.html", "report{}.json", "metrics{}.csv", "config{}.yaml")
_ARTEFACTS = {"modulator": "modulator_config.json", "wavegpt": "wave_config.json"}  # folder → what says what it holds


class WandbFiles(pl.Callback):
    """Uploads files of the run folder if a W&B logger is configured, on rank 0.

    At the start: the saved configuration, without secrets. At the end: the figures as images, an artifact ``report`` of
    the report and its figures, and an artifact ``modulator`` (``wavegpt`` of a language model) of type model, the
    folder to load it from, with the run's name and ``latest`` as aliases.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._configure(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._configure(trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._configure(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for logger in _loggers(trainer):
            _attempt(logger, partial(_upload_all, logger, Path(trainer.default_root_dir), _step(trainer)))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        folder, stage = Path(trainer.default_root_dir), TrainerFn(stage).value
        suffix = f"_{stage}" if (folder / f"report_{stage}.md").is_file() else ""
        if stage in ("validate", "test") and not trainer.interrupted:
            for logger in _loggers(trainer):
                _attempt(logger, partial(_upload_report, logger, folder, suffix, _step(trainer)))

    def _configure(self, trainer: pl.Trainer) -> None:
        stage = "" if trainer.state.fn == TrainerFn.FITTING else f"_{trainer.state.fn.value}"  # type: ignore[union-attr]
        file = Path(trainer.default_root_dir) / f"config{stage}.yaml"
        for logger in _loggers(trainer):
            if file.is_file():
                _attempt(logger, partial(_upload_config, logger, file))


def _loggers(trainer: pl.Trainer) -> list[WandbLogger]:
    return [some for some in trainer.loggers if isinstance(some, WandbLogger)] if trainer.is_global_zero else []


def _step(trainer: pl.Trainer) -> int:
    """Step at which metrics are logged: that of the last trained batch."""
    return max(trainer.global_step - 1, 0)


def _attempt(logger: WandbLogger, action: Callable[[], None]) -> None:
    if isinstance(logger, RunWandb):
        # a disabled run would stage what it never uploads
        logger.attempt(lambda: None if logger.experiment.disabled else action())
    else:  # Lightning's own logger, whose failures are errors
        action()


def _upload_config(logger: WandbLogger, file: Path) -> None:
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    logger.experiment.config.update(config, allow_val_change=True)


def _upload_all(logger: WandbLogger, folder: Path, step: int) -> None:
    _upload_report(logger, folder, "", step)
    name = next((name for name in _ARTEFACTS if (folder / name).is_dir()), None)
    if name is None:
        return
    import wandb

    artefact, file = folder / name, _ARTEFACTS[name]
    about = json.loads((artefact / file).read_text(encoding="utf-8"))
    kept = ("modulator", "backbone", "layers", "stream", "sha256")
    metadata = {key: about[key] for key in kept if key in about} | {"figures": _figures(folder)}
    with _staged_in(folder):
        artifact = wandb.Artifact(name, "model", description=f"{about.get('modulator', name)} of {folder.name}")
        artifact.metadata = metadata
        for path in sorted(artefact.iterdir()):  # add_dir would print to the terminal
            artifact.add_file(str(path), name=path.name)
    logger.experiment.log_artifact(artifact, aliases=["latest", run_name(folder)])


def _upload_report(logger: WandbLogger, folder: Path, suffix: str, step: int) -> None:
    import wandb

    run = logger.experiment
    pictures = [path for path in sorted((folder / "figures").glob("*.png")) if _of_stage(path.stem, suffix)]
    if pictures:
        run.log({STEP: step} | {f"figures/{path.stem}": wandb.Image(str(path)) for path in pictures})
    with _staged_in(folder):
        artifact = wandb.Artifact("report", "report", metadata={"figures": _figures(folder, suffix)})
        for path in (folder / name.format(suffix) for name in _REPORT):
            if path.is_file():
                artifact.add_file(str(path), name=path.name)
        for path in pictures:
            artifact.add_file(str(path), name=f"figures/{path.name}")
    run.log_artifact(artifact, aliases=["latest", run_name(folder)])


def _of_stage(stem: str, suffix: str) -> bool:
    return stem.endswith(suffix) if suffix else not stem.endswith(("_validate", "_test"))


def _figures(folder: Path, suffix: str = "") -> dict[str, float]:
    """Last value of every metric in the report."""
    try:
        report = json.loads((folder / f"report{suffix}.json").read_text(encoding="utf-8"))
        measured = report["run"]["metrics"]
        return {
            key: value["last"] for key, value in measured.items() if "last" in value and not key.startswith("alpha/")
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}


@contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """Context in which W&B stages files for upload in the run folder rather than in the user's home."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = str((folder / "wandb").absolute())
    staging = folder / "wandb" / "artifacts" / "staging"
    earlier = set(staging.glob("*"))
    try:
        yield
    except BaseException:  # such as of a full disk: no artifact needs these copies, and the last one may be empty
        for copy in set(staging.glob("*")) - earlier:
            copy.unlink(missing_ok=True)
        raise
    finally:
        os.environ.pop("WANDB_DATA_DIR")
        if before is not None:
            os.environ["WANDB_DATA_DIR"] = before
