"""Writes down what a run was and what it found: `report.json` for programs, `report.md` and `report.html` for people.

Also when the run was interrupted or failed, saying so. An evaluation in a folder that a training left its figures in
writes files of its own beside them: it never touches what the training found.
"""

import json
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.loggers.metrics_csv import MetricsCSV
from callbacks.loggers.tensorboard import RunTensorBoard
from callbacks.measures.first_validation import FirstValidation
from callbacks.reporting.environment import command_line, machine, peak_memory, seed, versions
from callbacks.reporting.examples import side_by_side
from callbacks.reporting.history import Part, followed_by, parts_of
from callbacks.reporting.values import (
    alphas_of,
    first_and_last,
    health_of,
    holds_a_training,
    learns,
    losses,
    only_last,
    stop_reason,
    what_happened,
    without_untrained,
)
from callbacks.saving.artifact import weights_of
from callbacks.saving.checkpoints import RunCheckpoint, monitor_of, result_of
from modulant.reports.run.charts import draw
from modulant.reports.run.folder import finite
from modulant.reports.run.page import markdown, of_folder
from modulant.reports.series import read_metrics
from modulant.storage import StorageError, write_whole

_SECTIONS = {"AlphaConvergence": "alpha", "RelationalAlignment": "relational", "PentachoronHealth": "pentachoron"}


class RunReport(Callback):
    """Writes the report when a fit, a validation or a test ends, on rank zero, complete or not at all.

    Args:
        figures: draw figures, write report.html, and ask both models for a few answers.
    """

    def __init__(self, figures: bool = True) -> None:
        self.figures = figures
        self._began: float | None = None
        self._began_at = ""
        self._stage = ""
        self._suffix = ""
        self._epoch_began = 0.0
        self._seconds_before = 0.0  # of earlier processes of this run
        self._epoch_seconds: list[float] = []
        self._loaded_step = 0
        self._initial_alphas: list[list[float]] | None = None
        self._known: dict[str, Any] = {}
        self._latest: dict[str, float] = {}
        self._texts: list[dict[str, Any]] = []
        self._failed = False

    @property
    def state_key(self) -> str:
        return "RunReport"

    def state_dict(self) -> dict[str, Any]:
        return {
            "seconds": self._total_seconds(),
            "epoch_seconds": list(self._epoch_seconds),
            "initial_alphas": self._initial_alphas,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._initial_alphas = state_dict["initial_alphas"]
        if self._stage == "fit":  # an evaluation takes its own time only
            self._seconds_before = state_dict["seconds"]
            self._epoch_seconds = list(state_dict["epoch_seconds"])

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._loaded_step = int(checkpoint["global_step"])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stage = stage = TrainerFn(stage).value
        self._began = time.monotonic()
        self._began_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._failed = False
        self._known, self._latest, self._texts = {}, {}, []
        self._seconds_before, self._epoch_seconds = 0.0, []
        self._initial_alphas, self._loaded_step = None, 0
        folder = Path(trainer.default_root_dir)
        self._suffix = "" if stage == "fit" or not holds_a_training(folder) else f"_{stage}"
        if self._suffix:
            for logger in trainer.loggers:
                if isinstance(logger, MetricsCSV):
                    logger.redirect(f"metrics{self._suffix}.csv")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer, pl_module)
        for logger in _boards(trainer):
            logger.add_layout(_experts(pl_module) if hasattr(pl_module, "handle") else None)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_began = time.monotonic()  # a run that is resumed in mid-epoch starts no epoch
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV):
                logger.resume_at(trainer.global_step)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_began = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_seconds.append(time.monotonic() - self._epoch_began)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # here, and on every rank: reading them may reduce them over ranks, which after the end is too late
        self._look_back(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._stage == "validate":
            self._look_back(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look_back(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._stage == "validate":
            self._look(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module, "finished", stop_reason(trainer))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage in ("validate", "test") and not self._failed:
            self._write(trainer, pl_module, "finished", "evaluation complete")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._failed = True
        # Where nothing was trained, the error itself says all, and what an earlier process has written stays.
        if self._stage != "fit" or trainer.global_step <= self._loaded_step:
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RunCheckpoint):  # first: the report names it, and takes seconds to draw
                callback.on_exception(trainer, pl_module, exception)
        outcome, reason = what_happened(exception)
        try:
            self._write(trainer, pl_module, outcome, reason)
        except Exception as error:
            if isinstance(exception, StorageError) and isinstance(error, StorageError):
                return  # one full disk, one line
            # whatever broke the run may have broken what a report reads; the first error is the one to be seen
            print(f"no report was written: {type(error).__name__}: {error}", file=sys.stderr)

    def _look(self, trainer: Trainer, module: LightningModule) -> None:
        """What is known before the first batch; a DataModule may forget it in its teardown."""
        if self._known:
            return
        if trainer.is_global_zero:  # now, and not when it writes: a run folder that has vanished stays away
            Path(trainer.default_root_dir).mkdir(parents=True, exist_ok=True)
        trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
        total = sum(p.numel() for p in module.parameters())
        modulator = getattr(module, "modulator", None)
        self._known = {
            "model": {
                "module": type(module).__name__,
                "modulator": type(modulator).__name__ if modulator is not None else None,
                "learns": learns(module),
                "layers": list(getattr(module, "layers", [])),
                "parameters": {"trainable": trainable, "frozen": total - trainable, "total": total},
                "describe": _described(module),
            },
            "data": _described(getattr(trainer, "datamodule", None)),
            "environment": {
                "versions": versions(),
                **machine(),
                "accelerator": type(trainer.accelerator).__name__.removesuffix("Accelerator").lower(),
                "devices": trainer.world_size,
                "strategy": type(trainer.strategy).__name__,
                "precision": str(trainer.precision),
            },
        }
        if self._initial_alphas is None:
            self._initial_alphas = alphas_of(module)

    def _look_back(self, trainer: Trainer, module: LightningModule) -> None:
        self._latest = _floats(trainer.callback_metrics)
        if self.figures:
            self._texts = side_by_side(trainer, module)

    def _write(self, trainer: Trainer, module: LightningModule, outcome: str, reason: str) -> None:
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        report, metrics = self._report(trainer, module, outcome, reason), self._metrics(trainer)
        if self.figures:
            report["figures"] = draw(report, metrics, folder, self._suffix)
        report = finite(report)
        write_whole(folder / f"report{self._suffix}.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        text, page = of_folder(folder, report, metrics) if self.figures else (markdown(report), "")
        write_whole(folder / f"report{self._suffix}.md", text)
        if self.figures:
            write_whole(folder / f"report{self._suffix}.html", page)
        for logger in _boards(trainer) if outcome == "finished" else ():  # else it is closed already
            logger.add_run_files(folder, report["figures"], report["run"]["steps"])

    def _report(self, trainer: Trainer, module: LightningModule, outcome: str, reason: str) -> dict[str, Any]:
        folder = Path(trainer.default_root_dir)
        series = self._metrics(trainer)
        measured = first_and_last(series, self._latest)
        for key, value in _before_training(trainer).items():  # a run without metrics.csv knows them too
            before = {"first": value, "first_step": 0}
            # the only point of the series is this one where no validation came after it
            only = measured.get(key, {}).get("last_step", 0) == 0 and key not in self._latest
            measured[key] = before if only else measured[key] | before
        sections = {name: _summary(trainer, name) for name in _SECTIONS.values()}
        # Lightning counts no steps in an evaluation: those of the checkpoint are meant
        steps = trainer.global_step if self._stage == "fit" else self._loaded_step
        if self._stage == "fit":
            measured, sections = without_untrained(measured, sections)
        else:
            sections = {name: only_last(summary, steps) for name, summary in sections.items()}
        final = alphas_of(module)
        metrics_file = f"metrics{self._suffix}.csv"
        parts = self._parts(trainer)
        return {
            "run": {
                "stage": self._stage,
                "outcome": outcome,
                "folder": _relative(folder),
                "command": parts[0]["command"] if parts else command_line(),
                "parts": parts,
                "started": self._began_at,
                "ended": datetime.now(UTC).isoformat(timespec="seconds"),
                "seed": seed(),
                "resumed_from": str(trainer.ckpt_path) if trainer.ckpt_path else None,
                "epochs": len(self._epoch_seconds),
                "steps": steps,
                "result": self._result(trainer, module, outcome),
                "monitor": monitor_of(trainer),
                "checkpoints": [f"checkpoints/{path.name}" for path in sorted((folder / "checkpoints").glob("*.ckpt"))],
                "metrics_file": metrics_file if (folder / metrics_file).is_file() else None,
                "metrics": measured,
            },
            **self._known,
            # what a module says of itself may be settled after the first look
            "model": {**self._known["model"], "describe": _described(module), "health": health_of(module)},
            "alpha": {
                "layers": self._known["model"]["layers"] if final else [],
                "experts": _experts(module) if final else [],
                # a checkpoint of a run that modulated other layers has no start to compare with
                "initial": self._initial_alphas if len(self._initial_alphas or []) == len(final or []) else None,
                "final": final,
                "convergence": sections["alpha"] or None,
            },
            "relational": sections["relational"],
            "pentachoron": sections["pentachoron"],
            "loss": losses(measured),
            "stop": {"reason": reason, "step": steps, "epoch": trainer.current_epoch},
            "time": {
                "total_s": self._total_seconds(),
                "this_process_s": self._total_seconds() - self._seconds_before,
                "per_epoch_s": self._epoch_seconds,
            },
            "memory": peak_memory(),
            "figures": {},
            "texts": self._texts,
        }

    def _result(self, trainer: Trainer, module: LightningModule, outcome: str) -> dict[str, Any] | None:
        """Which step the artefact is of, and its figures, where that is not the last step."""
        result = result_of(trainer) if (self._stage, outcome) == ("fit", "finished") else None
        if result is None or result.checkpoint is None:
            return None
        with weights_of(module, result):
            alphas = alphas_of(module)
        # Lightning counts the batches from 0.
        at = {key: dict(series).get(result.step - 1) for key, series in self._metrics(trainer).items()}
        figures = {key: value for key, value in at.items() if value is not None}
        return {"step": result.step, "reason": result.reason, "alphas": alphas, "metrics": figures}

    def _metrics(self, trainer: Trainer) -> dict[str, list[tuple[int, float]]]:
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV):
                return read_metrics(logger.path)
        return {}

    def _parts(self, trainer: Trainer) -> list[Part]:
        """The commands that trained this run, this process's too if it has; none of an evaluation."""
        if self._stage != "fit":
            return []
        parts = parts_of(Path(trainer.default_root_dir))
        if trainer.global_step == self._loaded_step:
            return parts
        here = {"from_step": self._loaded_step, "command": command_line(), "config": "config.yaml"}
        return followed_by(parts, here)

    def _total_seconds(self) -> float:
        return self._seconds_before + (time.monotonic() - self._began if self._began is not None else 0.0)


def _boards(trainer: Trainer) -> list[RunTensorBoard]:
    return [logger for logger in trainer.loggers if isinstance(logger, RunTensorBoard)]


def _experts(module: LightningModule) -> list[str]:
    return list(getattr(getattr(module, "modulator", None), "expert_names", ()))


def _summary(trainer: Trainer, section: str) -> dict[str, Any]:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        names = {base.__name__ for base in type(callback).__mro__}
        if any(_SECTIONS.get(name) == section for name in names) and hasattr(callback, "summary"):
            return dict(callback.summary())
    return {}


def _before_training(trainer: Trainer) -> dict[str, float]:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, FirstValidation) and trainer.state.fn == TrainerFn.FITTING:
            return callback.summary()
    return {}


def _described(what: Any) -> dict[str, Any]:
    describe = getattr(what, "describe", None)
    return dict(describe()) if callable(describe) else {}


def _floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in metrics.items()}


def _relative(folder: Path) -> str:
    """The folder as a user would type it here."""
    try:
        return str(folder.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(folder)
