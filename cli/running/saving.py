"""The configuration that a run saves, with its commands; `cli.configuration.saved` reads it again."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.reporting import history
from callbacks.reporting.environment import command_line
from cli.command import Command
from cli.running import own_code
from modulant.storage import write_whole
from modulant.storage.files import free_name
from modulant.storage.secrets import HIDDEN, without_secret_values
from probes.configurations import leaves

# Keys of one command, which are not saved with the run.
_OF_THE_COMMAND = ("output", "resume", "ckpt_path", "weights_only", "verbose", "return_predictions")

# Prompts, and how they are asked, are new each time.
_ASKED = ("data.prompts", "talk.", "model.writing.")

_HIDDEN_IN_FILE = " (hidden when it was saved)"


class RunConfig(SaveConfigCallback):
    """Writes the whole configuration into the run folder.

    Of a new run when it begins, of a resumed one just before its first checkpoint: config.yaml is what the newest
    checkpoint was trained with, and a resume that fails or trains nothing leaves it as it was.

    Args:
        command: what was typed.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace, command: Command, **kwargs: Any) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self._command = command
        self._resumed_at = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write nothing yet: a checkpoint that does not fit must leave no configuration behind."""

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._resumed_at = int(checkpoint["global_step"])
        if trainer.state.fn == TrainerFn.FITTING:
            epochs = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {})
            _check_goes_on(trainer, int(epochs.get("current", {}).get("started", 0)), self._resumed_at)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.ckpt_path is None or not (Path(trainer.default_root_dir) / "config.yaml").is_file():
            self._save(trainer, pl_module, "config.yaml")

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.global_step > self._resumed_at:
            self._save(trainer, pl_module, "config.yaml")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._save(trainer, pl_module, "config_validate.yaml")

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer, pl_module, "config_test.yaml")

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer, pl_module, "config_predict.yaml")

    def _save(self, trainer: pl.Trainer, module: pl.LightningModule, name: str) -> None:
        if not trainer.is_global_zero or self.already_saved:
            return
        self.already_saved = True
        self.save_config(trainer, module, name)
        if name == "config.yaml":
            own_code.keep(self._command.trusted, Path(trainer.default_root_dir), _until(trainer))

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        file, text = Path(trainer.default_root_dir) / stage, saved_form(self.parser, self.config)
        if stage == "config.yaml":
            text = self._with_history(file, text, _until(trainer))
        write_whole(file, text)

    def _with_history(self, file: Path, text: str, until: str) -> str:
        """The configuration under the commands that trained by it; another goes to a file of its own, with its own."""
        resume = self._command.resume
        folder = file.parent if file.is_file() or resume is None else resume
        before, settings = history.head_of(folder), ""
        if (folder / "config.yaml").is_file():
            _, settings = history.taken_apart((folder / "config.yaml").read_text(encoding="utf-8"))
        if settings not in ("", text):
            write_whole(free_name(file.with_name(f"config_until_{until}.yaml")), before + settings)
            before = ""
        return history.extended(before, self._resumed_at, command_line()) + text


def _check_goes_on(trainer: pl.Trainer, epochs: int, steps: int) -> None:
    """Refuse to resume a run that has trained longer than it now may.

    Raises:
        ValueError: it has; the key is named.
    """
    for key, most, trained in (("max_epochs", trainer.max_epochs, epochs), ("max_steps", trainer.max_steps, steps)):
        if most is not None and -1 < most < trained:
            what = "is in epoch" if key == "max_epochs" else "has trained step"
            raise ValueError(
                f"trainer.{key} is {most}, and the run {what} {trained} already; give at least that many, or measure "
                "it as it is with validate"
            )


def _until(trainer: pl.Trainer) -> str:
    """The point up to which a run was trained as before."""
    return Path(str(trainer.ckpt_path)).stem if trainer.ckpt_path else "restart"


def saved_form(parser: LightningArgumentParser, config: Namespace) -> str:
    """A configuration as YAML, without what belongs to one command only, and without secrets."""
    config = config.clone()
    for key in _OF_THE_COMMAND:
        config.pop(key, None)
    return without_secret_values(parser.dump(config, skip_unset=False, skip_validation=True))


def changes(text: str, saved: Path) -> list[str]:
    """The settings that differ from those in a run's config.yaml, each with both values.

    Args:
        text: the configuration now, as `saved_form` makes it.
        saved: the run's config.yaml.
    """
    before = leaves(yaml.safe_load(saved.read_text(encoding="utf-8")))
    before = {key: value for key, value in before.items() if not key.startswith(_ASKED)}
    return [
        f"{key} {_yaml(before[key])}{_HIDDEN_IN_FILE if HIDDEN in _yaml(before[key]) else ''} → {_yaml(value)}"
        for key, value in leaves(yaml.safe_load(text)).items()
        if key in before and value != before[key]
    ]


def _yaml(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True).strip().removesuffix("...").strip()
