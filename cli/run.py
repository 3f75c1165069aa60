"""LightningCLI with this project's run folder, loggers, checkpoints and callbacks."""

import json
import logging
import os
import re
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from jsonargparse import Namespace, set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import callbacks
from callbacks import (
    AtomicCheckpointIO,
    BatchSeed,
    FirstValidation,
    Interruptible,
    MetricsCSV,
    RunArtifact,
    RunConsole,
    RunProgress,
    RunWandb,
    WandbFiles,
    newest_checkpoint,
)
from callbacks.loggers.tensorboard import RunTensorBoard, quiet_writers
from callbacks.reporting import history
from callbacks.reporting.environment import command_line
from callbacks.stopping.signals import current
from cli import own, own_code, schema
from cli.command import Command
from cli.folder import RunFolder
from cli.own import OwnFile
from cli.schema import as_list
from modulant.storage import storing_a_run, write_whole
from modulant.storage.files import free_name
from modulant.storage.secrets import HIDDEN, without_secret_values
from probes.controls.settings import leaves

# Key in the configuration, and the callback that it configures.
SECTIONS: dict[str, type[pl.Callback]] = {
    key: getattr(callbacks, own["$ref"].rpartition(".")[2])
    for key, own in schema.load()["properties"].items()
    if "callbacks." in own.get("$ref", "")
}
# Keys of one command, which are not saved with the run.
_OF_THE_COMMAND = ("output", "resume", "ckpt_path", "weights_only", "verbose", "return_predictions")

# Prompts, and how they are asked, are new each time.
_ASKED = ("data.prompts", "talk.")

_HIDDEN_IN_FILE = " (hidden when it was saved)"

# Warnings of the libraries that a user cannot act on.
_NOISE = (
    r".*treespec, LeafSpec.*",
    r".*`IterableDataset` has `__len__` defined.*",
    r".*does not have many workers.*",
    r".*LightningCLI's args parameter.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*Found .* module\(s\) in eval mode.*",
    r".*The number of training batches .* is smaller than the logging interval.*",
    r".*torch.jit.script.* is deprecated.*",
    r".*You're resuming from a checkpoint that ended before the epoch ended.*",
    r".*GPU available but not used.*",
)


def prepare(trusted: tuple[OwnFile, ...]) -> None:
    """Settle what the parser may import, and execute the user-supplied files that are trusted."""
    quiet()
    set_parsing_settings(
        import_path_denylist=["*"],
        import_path_allowlist=[*allowlist(), *own.classes(trusted)],
        instantiate_subclass_spec_in_any=False,
    )
    for file in trusted:
        own_code.load(file)


def allowlist() -> list[str]:
    """Every name that the parser may import: of each class in the schema, where it is exported and where defined."""
    names = set(schema.load()["$defs"])
    for path in tuple(names):
        package, _, name = path.rpartition(".")
        kind = getattr(import_module(package), name)
        names.add(f"{kind.__module__}.{kind.__qualname__}")
    return sorted(names)


def help_all(arguments: list[str]) -> None:
    """Print the parser's own page, with every option there is."""
    prepare(())
    ModulantCLI.build(arguments, None, None)


def parser_arguments(command: Command, config: Mapping[str, Any]) -> list[str]:
    """What the parser is given: one configuration, in which everything is merged."""
    return [command.subcommand, f"--config={json.dumps(config, ensure_ascii=False)}", *command.prints_config]


def run(command: Command, config: Mapping[str, Any]) -> None:
    """Build what a checked command configures, and run it.

    Args:
        command: what was typed.
        config: what `cli.check.check` has merged.

    Raises:
        ValueError: something a user can mend, in one line.
    """
    prepare(command.trusted)
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


def quiet() -> None:
    """Silence warnings of the libraries that a user cannot act on."""
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


class Parser(LightningArgumentParser):
    """Raises an error instead of printing it with a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        raise ValueError(one_line(message)) from ex

    def instantiate_classes(self, *args: Any, **kwargs: Any) -> Any:
        """The name by which Lightning 2.6 calls what jsonargparse now calls `instantiate`."""
        return self.instantiate(*args, **kwargs)


def one_line(message: str) -> str:
    """The part of a parser's message that a user can act on."""
    text = " ".join(message.split())
    if refused := re.search(r"^Parser key \"([^\"]+)\".*Importing '([^']+)' is not allowed", text):
        return f"{refused[1]}: '{refused[2]}' is not loaded"
    text = re.sub(r"Parser key \"([^\"]+)\":\s*", r"\1: ", text)
    return text if len(text) < 400 else text[:397] + "…"


class RunConfig(SaveConfigCallback):
    """Writes the whole configuration into the run folder.

    Of a new run when it begins, of a resumed one just before its first checkpoint: config.yaml is what the newest
    checkpoint was trained with, and a resume that fails or trains nothing leaves it as it was.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace, **kwargs: Any) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self._resumed_at = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write nothing yet: a checkpoint that does not fit must leave no configuration behind."""

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._resumed_at = int(checkpoint["global_step"])

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
        if name == "config.yaml" and ModulantCLI.command is not None:
            own_code.keep(ModulantCLI.command.trusted, Path(trainer.default_root_dir), _until(trainer))

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        file, text = Path(trainer.default_root_dir) / stage, saved_form(self.parser, self.config)
        if stage == "config.yaml":
            text = self._with_history(file, text, _until(trainer))
        write_whole(file, text)

    def _with_history(self, file: Path, text: str, until: str) -> str:
        """The configuration under the commands that trained by it; another goes to a file of its own, with its own."""
        resume = ModulantCLI.command.resume if ModulantCLI.command is not None else None
        folder = file.parent if file.is_file() or resume is None else resume
        before, settings = history.head_of(folder), ""
        if (folder / "config.yaml").is_file():
            _, settings = history.taken_apart((folder / "config.yaml").read_text(encoding="utf-8"))
        if settings not in ("", text):
            write_whole(free_name(file.with_name(f"config_until_{until}.yaml")), before + settings)
            before = ""
        return history.extended(before, self._resumed_at, command_line()) + text


def _until(trainer: pl.Trainer) -> str:
    """The point up to which a run was trained as before."""
    return Path(str(trainer.ckpt_path)).stem if trainer.ckpt_path else "restart"


def saved_form(parser: LightningArgumentParser, config: Namespace) -> str:
    """A configuration as YAML, without what belongs to one command only, and without secrets."""
    config = config.clone()
    for key in _OF_THE_COMMAND:
        config.pop(key, None)
    return without_secret_values(parser.dump(config, skip_unset=False, skip_validation=True))


class ModulantCLI(LightningCLI):
    """fit | validate | test | predict over a configuration."""

    command: Command | None = None
    folder: RunFolder | None = None

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
                config.ckpt_path = str(newest_checkpoint(resume))
            except FileNotFoundError as error:
                raise ValueError(f"--resume: {error}") from error
            if (resume / "config.yaml").is_file():
                self._print_changes(resume / "config.yaml", Path(config.ckpt_path))

    def _print_changes(self, saved: Path, checkpoint: Path) -> None:
        """One line: the checkpoint that a run resumes from, and the settings that have changed."""
        now = yaml.safe_load(saved_form(self._parser(self.subcommand), self.config[self.subcommand]))
        before = leaves(yaml.safe_load(saved.read_text(encoding="utf-8")))
        before = {key: value for key, value in before.items() if not key.startswith(_ASKED)}
        changed = [
            f"{key} {_yaml(before[key])}{_HIDDEN_IN_FILE if HIDDEN in _yaml(before[key]) else ''} → {_yaml(value)}"
            for key, value in leaves(now).items()
            if key in before and value != before[key]
        ]
        if int(os.environ.get("LOCAL_RANK", "0")) == 0:
            assert self.command is not None
            assert self.command.resume is not None
            for line in own.changes(self.command.trusted, self.command.resume):
                print(line, flush=True)
            print(f"resuming from {checkpoint}" + (f"; changed: {', '.join(changed)}" if changed else ""), flush=True)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise _innermost(error) from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self._get(self.config_init, "trainer")
        assert self.folder is not None
        folder = str(self.folder.claim())
        config["default_root_dir"] = folder
        config["logger"] = self._loggers(config.get("logger"), folder)
        if self.subcommand == "predict":
            config["logger"] = False  # nothing is measured
        config["plugins"] = [*as_list(config.get("plugins")), AtomicCheckpointIO()]
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
        config["callbacks"] = [Interruptible(), *config["callbacks"]]
        try:
            return super()._instantiate_trainer(config, [*callbacks, RunArtifact(), WandbFiles(), RunConsole()])
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


def _yaml(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True).strip().removesuffix("...").strip()


def _innermost(error: ValueError) -> BaseException:
    """The error of a class's constructor, out of the parser's error about every type that the value is not."""
    inner: BaseException = error
    while str(inner).startswith("Does not validate against any of the") and inner.__cause__ is not None:
        inner = inner.__cause__
    section = next((key for key, kind in SECTIONS.items() if _raised_in(inner, kind)), None)
    if section is not None:
        return ValueError(f"{section}: {re.sub(r'^[A-Z][A-Za-z]+: ', '', str(inner))}")
    return inner


def _raised_in(error: BaseException, kind: type) -> bool:
    """Whether an error passed through a class's constructor."""
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code.co_name == "__init__" and type(frame.f_locals.get("self")) is kind:
            return True
        traceback = traceback.tb_next
    return False


__all__ = ["SECTIONS", "ModulantCLI", "Parser", "one_line", "run"]
