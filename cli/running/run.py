"""LightningCLI with this project's run folder, loggers, checkpoints and callbacks."""

import gc
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import (
    AtomicCheckpointIO,
    BatchSeed,
    FirstValidation,
    Interruptible,
    MetricsCSV,
    Monitors,
    RunArtifact,
    RunConsole,
    RunProgress,
    RunWandb,
    WandbFiles,
    Writing,
)
from callbacks.interfaces import applying
from callbacks.loggers.tensorboard import RunTensorBoard, quiet_writers
from callbacks.saving.files import read_newest
from callbacks.stopping.signals import current
from cli.command import Command
from cli.configuration import own
from cli.configuration.schema import as_list
from cli.folder import RunFolder
from cli.running.parser import SECTIONS, Parser, named, prepare
from cli.running.saving import RunConfig, changes, saved_form
from modulant.storage import storing_a_run


def help_all(arguments: list[str]) -> None:
    """Print the parser's own page, with every option there is."""
    prepare(())
    ModulantCLI.build(arguments, None, None)


def parser_arguments(command: Command, config: Mapping[str, Any]) -> list[str]:
    """What the parser is given: one configuration, in which everything is merged."""
    return [command.subcommand, f"--config={json.dumps(config, ensure_ascii=False)}", *command.prints_config]


def run(command: Command, config: Mapping[str, Any]) -> Path:
    """Build what a checked command configures, and run it; return the run folder.

    Args:
        command: what was typed.
        config: what `cli.check.check` has merged.

    Raises:
        ValueError: something a user can mend, in one line.
    """
    prepare(command.trusted, config)
    folder = RunFolder(command)
    if (signals := current()) is not None:
        signals.clean_up = folder.give_up
    try:
        with quiet_writers(), storing_a_run(folder.path):
            ModulantCLI.build(parser_arguments(command, config), command, folder)
    except BaseException as error:
        folder.discard_if_empty()
        if command.subcommand == "fit" and any((folder.path / "checkpoints").glob("*.ckpt")):
            error.add_note(f"python train.py fit --resume {folder.path}")
        raise
    finally:
        folder.release()
    return folder.path


class ModulantCLI(LightningCLI):
    """fit | validate | test | predict over a configuration."""

    command: Command | None = None
    folder: RunFolder | None = None
    _read: tuple[Path, dict[str, Any]] | None = None  # the checkpoint to begin with, and its path

    @classmethod
    def build(cls, arguments: list[str], command: Command | None, folder: RunFolder | None) -> None:
        """Parse, build, run.

        Args:
            arguments: for the parser.
            command: what was typed.
            folder: the run folder.
        """
        ModulantCLI.command, ModulantCLI.folder = command, folder
        cls(
            model_class=pl.LightningModule,
            datamodule_class=pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=arguments,
            seed_everything_default=42,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            save_config_callback=RunConfig,
            save_config_kwargs={"command": command},
            parser_class=Parser,
            trainer_defaults={
                "num_sanity_val_steps": 0,
                "use_distributed_sampler": False,  # the DataModules shard their batches themselves
                "enable_model_summary": False,  # the console prints what is trained
            },
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--output", type=str | None, default=None, help="Run folder.")
        parser.add_argument("--resume", type=str | None, default=None, help="Run folder to resume.")
        for key, callback in SECTIONS.items():
            parser.add_lightning_class_args(callback, key)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Only the one that was typed: each other parser would take a third of a second."""
        known = LightningCLI.subcommands()
        command = ModulantCLI.command
        return known if command is None else {command.subcommand: known[command.subcommand]}

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand in ("validate", "test"):
            parser.set_defaults({"verbose": False})  # hundreds of rows; the report has them in order
        if subcommand == "predict":
            parser.set_defaults({"return_predictions": False})
        return parser

    def _parse_ckpt_path(self) -> None:
        """Do nothing: a checkpoint's hyper-parameters never win over the configuration."""

    def before_instantiate_classes(self) -> None:
        assert self.command is not None
        config = self.config[self.subcommand]
        # The data's tokenizer is the model's.
        backbone = config.model.get("init_args", {}).get("backbone")
        if backbone is not None and "backbone" in config.data.get("init_args", {}):
            config.data.init_args.backbone = backbone
        # A model that keeps what its frozen layers make of a batch needs the same batches each epoch.
        data = config.data.get("init_args", {})
        if config.model.get("init_args", {}).get("cache") and "regroup" in data and data.regroup is None:
            data.regroup = False
        resume = self.command.resume
        if resume is not None:
            try:
                self._read = read_newest(resume)
            except FileNotFoundError as error:
                raise ValueError(f"--resume: {error}") from error
            config.ckpt_path = str(self._read[0])
            if (resume / "config.yaml").is_file():
                self._print_changes(resume / "config.yaml", self._read[0])

    def _print_changes(self, saved: Path, checkpoint: Path) -> None:
        """One line: the checkpoint that a run resumes from, and the settings that have changed."""
        if int(os.environ.get("LOCAL_RANK", "0")) != 0:
            return
        assert self.command is not None
        assert self.command.resume is not None
        for line in own.changes(self.command.trusted, self.command.resume):
            print(line, flush=True)
        changed = changes(saved_form(self._parser(self.subcommand), self.config[self.subcommand]), saved)
        print(f"resuming from {checkpoint}" + (f"; changed: {', '.join(changed)}" if changed else ""), flush=True)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (MisconfigurationException, TypeError, ValueError) as error:
            raise named(error, self.config[self.subcommand]) from error

    def _run_subcommand(self, subcommand: str) -> None:
        gc.freeze()  # what the libraries and the parser have made stays: no collection looks at it again
        gc.enable()
        super()._run_subcommand(subcommand)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self._get(self.config_init, "trainer")
        assert self.folder is not None
        folder = str(self.folder.claim())
        config["default_root_dir"] = folder
        config["logger"] = self._loggers(config.get("logger"), folder)
        if self.subcommand == "predict":
            config["logger"] = False  # nothing is measured
        config["plugins"] = [*as_list(config.get("plugins")), AtomicCheckpointIO(self._read)]
        configured = as_list(config.get("callbacks"))
        data = self.config[self.subcommand].data.get("init_args", {})
        if self.subcommand == "predict" and data.get("prompts") is not None:
            config["enable_progress_bar"] = False  # one that is redrawn, answers and a person who types share no line
        if config.get("enable_progress_bar") is not False:
            configured.append(RunProgress())
        config["callbacks"] = [*configured, BatchSeed(), FirstValidation()]
        return super().instantiate_trainer(**kwargs)

    def _instantiate_trainer(self, config: Any, callbacks: list[pl.Callback]) -> pl.Trainer:
        # The first ends a run before any other begins something; the last say what the others have written.
        config["callbacks"] = applying([Interruptible(), Monitors(), *config["callbacks"]], self.model)
        own = applying([*callbacks, Writing(), RunArtifact(), WandbFiles(), RunConsole()], self.model)
        try:
            return super()._instantiate_trainer(config, own)
        except (MisconfigurationException, TypeError, ValueError) as error:  # TypeError for devices it cannot count
            raise ValueError(f"trainer: {' '.join(str(error).split())}") from error

    def _loggers(self, logger: Any, folder: str) -> Any:
        """metrics.csv always; TensorBoard by default, or whatever a configuration names instead."""
        if logger is False:
            return False
        named: list[Logger] = [] if logger in (None, True) else as_list(logger)
        if not named:
            # an evaluation's figures are no points of the training's curves
            version = "tensorboard" if self.subcommand == "fit" else f"tensorboard_{self.subcommand}"
            named = [RunTensorBoard(folder, name="", version=version)]
        for some in named:
            if isinstance(some, RunWandb):
                some.set_run_folder(
                    folder, str(self.subcommand), resumed=self.command is not None and self.command.resume is not None
                )
        return [MetricsCSV(folder), *named]
