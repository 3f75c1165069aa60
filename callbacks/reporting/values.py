"""Values of a report, computed from a trainer, a module and the logged series: small functions, no state."""

import json
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.stopping.interruption import Interrupted

Metrics = Mapping[str, Sequence[tuple[int, float]]]


def holds_a_training(folder: Path) -> bool:
    """Whether a fit has left checkpoints or a report in a folder."""
    if any((folder / "checkpoints").glob("*.ckpt")):
        return True
    try:
        return json.loads((folder / "report.json").read_text(encoding="utf-8"))["run"]["stage"] == "fit"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def stop_reason(trainer: Trainer) -> str:
    """Why a training ended by itself; a callback's own reason comes first."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for name in ("stop_reason", "stopping_reason_message"):
            if given := getattr(callback, name, None):
                return str(given).rstrip(".")
    if trainer.max_steps > 0 and trainer.global_step >= trainer.max_steps:
        return f"max_steps ({trainer.max_steps}) reached"
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch:
        return f"max_epochs ({trainer.max_epochs}) reached"
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        remaining = callback.time_remaining() if isinstance(callback, Timer) else None
        if remaining is not None and remaining <= 0:
            return "max_time reached"
    return "a callback asked to stop and gave no reason" if trainer.should_stop else "the data ended"


def what_happened(exception: BaseException) -> tuple[str, str]:
    """Outcome and reason of a run that did not end by itself, in one line."""
    if isinstance(exception, Interrupted) and exception.number != signal.SIGINT:
        return "interrupted", f"interrupted by {signal.Signals(exception.number).name}"
    if isinstance(exception, KeyboardInterrupt | Interrupted):
        return "interrupted", "interrupted by the user (Ctrl-C)"
    if isinstance(exception, SIGTERMException):
        return "interrupted", f"interrupted by {signal.SIGTERM.name}"
    text = str(exception).strip().splitlines()
    return "failed", f"{type(exception).__name__}: {text[0]}".rstrip(".") if text else type(exception).__name__


def learns(module: LightningModule) -> str | None:
    """What is attached to a frozen backbone and learns: a modulator by its class, an adapter by its name."""
    modulator = getattr(module, "modulator", None)
    return getattr(module, "adapter_name", None) if modulator is None else type(modulator).__name__


def alphas_of(module: LightningModule) -> list[list[float]] | None:
    """α of the modulated layers, layer × expert; None without a modulator."""
    modulator = getattr(module, "modulator", None)
    if modulator is None:
        return None
    with torch.no_grad():
        alphas = modulator.alphas.detach().double().cpu()
    layers = list(getattr(module, "layers", range(len(alphas))))
    return alphas[layers].tolist()


def health_of(module: LightningModule) -> dict[str, float] | None:
    """`Modulator.health_report`: figures of the weights alone; None without a modulator."""
    report = getattr(getattr(module, "modulator", None), "health_report", None)
    return report() if callable(report) else None


def first_and_last(series: Metrics, latest: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Of every key its first and last value and their steps; what no file holds has a last value only."""
    measured: dict[str, dict[str, float]] = {key: {"last": value} for key, value in latest.items()}
    for key, points in series.items():
        if key != "epoch":
            (first_step, first), (last_step, last) = points[0], points[-1]
            measured[key] = {"first": first, "first_step": first_step, "last": last, "last_step": last_step}
    return measured


def only_last(summary: Mapping[str, Any], step: int) -> dict[str, Any]:
    """A callback's summary after an evaluation, without the history that a checkpoint has brought along."""
    history = [{**check, "step": step} for check in (summary.get("history") or [])[-1:]]
    return {**summary, "history": history, "last": history[0]} if history else dict(summary)


def without_untrained(
    measured: Mapping[str, dict[str, float]], sections: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, Any]]]:
    """Logged figures and summaries of a fit, where none is the last that was measured before the first step.

    Such a figure is the untrained module's: it is a first one alone.
    """
    kept, found = dict(measured), {name: dict(summary) for name, summary in sections.items()}
    for name, summary in found.items():
        last = summary.get("last") or {}
        if last.get("step") == 0:
            summary["last"] = None
            for key in {f"{name}/{figure}" for figure in last} & kept.keys():
                kept[key] = {end: value for end, value in kept[key].items() if end.startswith("first")}
    return kept, found


def losses(measured: Mapping[str, dict[str, float]]) -> dict[str, Any]:
    """Training, validation and test loss, first and last."""
    keys = {"train": ("train/loss", "train/loss_step"), "validation": ("val/loss",), "test": ("test/loss",)}
    found = {name: next((measured[key] for key in options if key in measured), None) for name, options in keys.items()}
    return {name: value for name, value in found.items() if value is not None}
