"""Text that a language model writes: shown token by token, and written to `predictions.jsonl` in the run folder."""

import sys
from dataclasses import asdict
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.logs import announce
from callbacks.talk import SHOWN, at_a_terminal, checkpoint_of, keep
from modulant.reports.wording import counted


class Writing(pl.Callback):
    """Continues prompts by a module that has ``write``, and shows each piece of text as soon as it is there.

    Of any other module nothing. The first prompts alone are shown, the file holds all.
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._conversation = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.state.fn == TrainerFn.PREDICTING and hasattr(pl_module, "write"):
            self._conversation = at_a_terminal(trainer, hint=str(pl_module.writes))

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
        if not hasattr(pl_module, "write") or not trainer.is_global_zero:
            return
        for prompt, pieces in outputs:
            shown = self._conversation or len(self._rows) < SHOWN
            text = ""
            if shown:
                sys.stdout.write(prompt)
            for piece in pieces:
                text += piece
                if shown:
                    sys.stdout.write(piece)
                    sys.stdout.flush()
            if shown:
                sys.stdout.write("\n" if self._conversation else "\n\n")
                sys.stdout.flush()
            self._rows.append(
                {
                    "prompt": prompt,
                    "text": text,
                    "checkpoint": checkpoint_of(trainer),
                    "settings": asdict(pl_module.writing),  # type: ignore[call-overload]
                }
            )
        if self._conversation:  # whatever ends it, what was written is kept
            keep(trainer, self._rows)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._rows:
            return
        file = keep(trainer, self._rows, 0 if self._conversation else len(self._rows) - SHOWN)
        announce(trainer, f"{counted(len(self._rows), 'text')}: {file}")
