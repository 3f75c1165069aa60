"""Progress of a run: loss, mean α and lift, as a bar on a terminal and as one plain line an epoch elsewhere.

A bar that redraws itself would fill a log file or a CI console with control codes.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console


@dataclass(frozen=True)
class _Shown:
    """A figure in the bar: its short name, the keys it may be logged under, its format."""

    name: str
    keys: tuple[str, ...]
    text: Callable[[float], str]
    of_validation: bool = False


def _four(value: float) -> str:
    return f"{value:.4f}"


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def _loss(value: float) -> str:
    return f"{value:.3f}"


SHOWN = (
    _Shown("loss", ("train/loss_step", "train/loss"), _loss),
    _Shown("val loss", ("val/loss",), _loss, of_validation=True),
    _Shown("bits per byte", ("val/bits_per_byte",), _four, of_validation=True),
    _Shown("alpha", ("alpha/mean",), _four),
    _Shown("pearson lift", ("relational/pearson_lift",), _signed, of_validation=True),
)


def shown_figures(metrics: dict[str, Any]) -> dict[str, str]:
    """The figures of `SHOWN` that were measured, under their short names and rounded."""
    found = {}
    for shown in SHOWN:
        key = next((key for key in shown.keys if key in metrics), None)
        if key is None:
            continue
        value = metrics[key]
        number = float(value.item() if isinstance(value, torch.Tensor) else value)
        found[shown.name] = shown.text(number) if math.isfinite(number) else str(number)
    return found


class RunProgress(RichProgressBar):
    """Lightning's rich bar with our figures; without a terminal, a plain line at the end of each epoch.

    Args:
        refresh_rate: how many times a second the bar is redrawn; 0 shows neither bars nor lines.
        leave: leave each epoch's finished bar on the screen.
    """

    def __init__(self, refresh_rate: int = 2, leave: bool = False) -> None:
        if refresh_rate < 0:
            raise ValueError(f"refresh_rate: redraws a second, or 0 for none, got {refresh_rate}")
        super().__init__(refresh_rate=refresh_rate, leave=leave)
        self._plain = False
        self._epoch_started = 0.0
        self._read_at = -math.inf
        self._validated: int | None = None  # the epoch in which there was a validation last

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        # here and not at construction: a launcher may redirect the output in between
        console = Console(file=sys.stdout)
        if not console.is_terminal or console.is_dumb_terminal:  # which cannot redraw a line
            self._plain = trainer.is_global_zero and self.refresh_rate > 0
            self.disable()

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        return dict(shown_figures(trainer.callback_metrics))

    def _update_metrics(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads the figures as often as they are drawn. Lightning reads them each step, and waits for the device."""
        now = time.monotonic()
        if now - self._read_at >= 1 / max(self.refresh_rate, 1):
            self._read_at = now
            super()._update_metrics(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._epoch_started = time.monotonic()  # a run that is resumed in mid-epoch starts no epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._epoch_started = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        self._validated = trainer.current_epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._read_at = -math.inf  # an epoch always ends with its own figures
        super().on_train_epoch_end(trainer, pl_module)
        # on every rank: reading the figures may reduce them over ranks
        figures = shown_figures(trainer.callback_metrics)
        if self._validated != trainer.current_epoch:  # of an earlier epoch, or of the untrained module
            of_others = {shown.name for shown in SHOWN if shown.of_validation}
            figures = {name: text for name, text in figures.items() if name not in of_others}
        if self._plain:
            seconds = time.monotonic() - self._epoch_started
            print(epoch_line(trainer.current_epoch + 1, trainer.max_epochs, trainer.global_step, figures, seconds))
            sys.stdout.flush()


def epoch_line(epoch: int, epochs: int | None, step: int, figures: dict[str, str], seconds: float) -> str:
    """One line about an epoch, counted from 1.

    >>> epoch_line(3, 10, 792, {"loss": "5.310", "alpha": "0.0213"}, 38.2)
    'epoch 3/10  step 792  loss 5.310  alpha 0.0213  38 s'
    """
    of = f"/{epochs}" if epochs is not None and epochs > 0 else ""
    parts = [f"epoch {epoch}{of}", f"step {step}", *(f"{name} {text}" for name, text in figures.items())]
    return "  ".join([*parts, f"{seconds:.0f} s"])
