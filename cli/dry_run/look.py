"""``--dry-run``: build what a command configures, but nothing that writes, and describe it instead of running it."""

import contextlib
import json
import sys
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from cli.command import Command
from cli.dry_run.plan import plan, told
from cli.folder import RunFolder
from cli.running.parser import prepare
from cli.running.run import ModulantCLI, parser_arguments


def look(command: Command, config: Mapping[str, Any]) -> None:
    """Check a command as far as `run` would, and print what it would do; nothing is written.

    Raises:
        ValueError: what `run` would say before it begins.
    """
    prepare(command.trusted, config)
    folder = RunFolder(command)
    # What is printed on the way is for people: the JSON has standard output for itself.
    out = sys.stderr if command.dry_run == "json" else sys.stdout
    with contextlib.redirect_stdout(out):
        DryCLI.build(parser_arguments(command, config), command, folder)
    print(DryCLI.page)


class DryCLI(ModulantCLI):
    """Builds what a command configures, but for a run folder and a trainer's parts, and says what would be done."""

    page = ""

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        config = self._get(self.config_init, "trainer")
        kept: dict[str, Any] = {
            key: config.get(key) for key in ("accelerator", "devices", "num_nodes", "strategy", "precision")
        }
        kept |= dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        try:
            return pl.Trainer(**kept)
        except (MisconfigurationException, TypeError, ValueError) as error:
            raise ValueError(f"trainer: {' '.join(str(error).split())}") from error

    def _run_subcommand(self, subcommand: str) -> None:
        assert self.folder is not None
        assert self.command is not None
        facts = plan(subcommand, self.model, self.datamodule, self.trainer, self.config[subcommand], self.folder)
        DryCLI.page = json.dumps(facts, indent=2) if self.command.dry_run == "json" else told(facts)
