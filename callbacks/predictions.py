"""What a model answered: printed as a table, and kept as `predictions.jsonl` in the run folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from storage import write_whole

SHOWN = 40  # rows on the screen; the file holds all


class RunPredictions(pl.Callback):
    """Collects the rows that `predict_step` returns: prompt, original answer, modulated answer."""

    def __init__(self) -> None:
        self._rows: list[dict[str, str]] = []

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._rows = []

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if isinstance(outputs, Sequence):
            self._rows += list(outputs)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or not self._rows:
            return
        file = Path(trainer.default_root_dir) / "predictions.jsonl"
        write_whole(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self._rows))
        table = Table("prompt", "original", "modulated")
        for row in self._rows[:SHOWN]:
            changed = row["original"] != row["modulated"]
            # as Text: brackets in a prompt are no markup
            cells = (Text(row["prompt"]), Text(row["original"]), Text(row["modulated"], "bold" if changed else ""))
            table.add_row(*cells)
        Console().print(table)
        same = sum(row["original"] == row["modulated"] for row in self._rows)
        print(f"{len(self._rows)} answers, {same} of them the same with and without modulation: {file}")
