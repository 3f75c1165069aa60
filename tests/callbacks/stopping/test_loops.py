"""The end of training is evaluated, whatever ends it, and a run resumes to the bit between evaluations."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from callbacks import (
    AtomicCheckpointIO,
    MetricsCSV,
    PentachoronHealth,
    RelationalAlignment,
    RunCheckpoint,
    RunReport,
    newest_checkpoint,
)
from modulant.reports.series import read_metrics

MakeTrainer = Callable[..., pl.Trainer]


class Evaluated(pl.Callback):
    """Steps at which an evaluation ended; raises at its start where `breaks_at` is the step."""

    def __init__(self, breaks_at: int = -1) -> None:
        self.steps: list[int] = []
        self.breaks_at = breaks_at

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == self.breaks_at:
            raise RuntimeError("boom")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.steps.append(trainer.global_step)


class Stop(pl.Callback):
    """Asks to stop after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        trainer.should_stop = trainer.should_stop or trainer.global_step == self.step


# Settings, and the steps that are evaluated: of 20 an epoch.
ENDS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "max_epochs": ({"max_epochs": 4}, [60, 80]),
    "max_epochs, a multiple": ({"max_epochs": 3}, [60]),
    "max_steps in mid-epoch": ({"max_steps": 47, "max_epochs": -1}, [47]),
    "max_steps at an epoch's end": ({"max_steps": 40, "max_epochs": 9}, [40]),
    "accumulated gradients": ({"max_steps": 15, "max_epochs": -1, "accumulate_grad_batches": 3}, [15]),
    "a callback in mid-epoch": ({"max_epochs": 9, "callbacks": [Stop(33)]}, [33]),
    "a callback, after min_epochs": ({"max_epochs": 9, "min_epochs": 4, "callbacks": [Stop(33)]}, [60, 80]),
    "an interval": ({"check_val_every_n_epoch": 1, "val_check_interval": 15}, [15, 35, 40]),
    "an interval in time": ({"val_check_interval": timedelta(hours=1)}, [40]),
    "no validation": ({"limit_val_batches": 0}, []),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_end_is_evaluated(make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any, name: str) -> None:
    settings, steps = ENDS[name]
    evaluated = Evaluated()
    callbacks = [evaluated, *settings.get("callbacks", []), RunCheckpoint()]
    settings = {"check_val_every_n_epoch": 3, **settings, "callbacks": callbacks}
    make_trainer(enable_checkpointing=True, **settings).fit(tiny_module, tiny_data)
    assert evaluated.steps == steps


def test_where_the_time_is_up(make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any) -> None:
    evaluated = Evaluated()
    trainer = make_trainer(
        callbacks=[evaluated, RunCheckpoint()], enable_checkpointing=True, check_val_every_n_epoch=10**6,
        max_epochs=-1, max_time=timedelta(seconds=0.1),
    )  # fmt: skip
    trainer.fit(tiny_module, tiny_data)
    assert evaluated.steps == [trainer.global_step]


def start(
    make_trainer: MakeTrainer, make_module: Any, data: Any, run: Path, *callbacks: Any, **settings: Any
) -> list[int]:
    """Train three epochs, evaluated after the second and the third, or go on; the steps that were evaluated."""
    evaluated = next((callback for callback in callbacks if isinstance(callback, Evaluated)), Evaluated())
    saving = RunCheckpoint(save_on_exception=evaluated.breaks_at >= 0)
    measures = [RelationalAlignment(baselines=False, bootstrap=0), PentachoronHealth(stop=False, n=50)]
    checkpoint = newest_checkpoint(run) if run.is_dir() else None
    trainer = make_trainer(
        **{
            "max_epochs": 3,
            "check_val_every_n_epoch": 2,
            "default_root_dir": str(run),
            "logger": MetricsCSV(str(run)),
            "enable_checkpointing": True,
            "plugins": [AtomicCheckpointIO()],
            **settings,
        },
        callbacks=[*{evaluated, *callbacks}, *measures, RunReport(figures=False), saving],
    )
    torch.manual_seed(0)  # of the module's frozen part
    trainer.fit(make_module(), datamodule=data, ckpt_path=checkpoint and str(checkpoint))
    return evaluated.steps


def state(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run has measured: metrics.csv, and what its last checkpoint says of the checks."""
    saved = AtomicCheckpointIO().load_checkpoint(newest_checkpoint(run))["callbacks"]
    checks = {name: saved[name]["history"] for name in ("RelationalAlignment", "PentachoronHealth")}
    return read_metrics(run / "metrics.csv"), checks


@pytest.fixture
def whole(tmp_path: Path, make_trainer: MakeTrainer, make_module: Any, tiny_data: Any) -> Path:
    """A run that is not interrupted."""
    assert start(make_trainer, make_module, tiny_data, tmp_path / "whole") == [40, 60]
    return tmp_path / "whole"


@pytest.mark.parametrize(
    ("step", "again"),
    [
        (40, [40, 60]),  # resumed from the end of the first epoch, which is not evaluated
        (45, [60]),  # from the end of the second, which is
        (60, [60]),
    ],
)
def test_a_killed_run_that_is_resumed_has_the_same_figures(
    make_trainer: MakeTrainer, make_module: Any, tiny_data: Any, explode: Any, whole: Path, step: int, again: list[int]
) -> None:
    run = whole.with_name("killed")
    with pytest.raises(RuntimeError, match="boom"):
        start(make_trainer, make_module, tiny_data, run, explode(step, RuntimeError("boom")))
    assert start(make_trainer, make_module, tiny_data, run) == again
    assert state(run) == state(whole)


@pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable")
@pytest.mark.parametrize(("settings", "step"), [({"max_steps": 60, "max_epochs": -1}, 60), ({"max_steps": 47}, 47)])
def test_a_last_evaluation_that_was_interrupted_is_repeated(
    tmp_path: Path, make_trainer: MakeTrainer, make_module: Any, tiny_data: Any, settings: dict[str, Any], step: int
) -> None:
    start(make_trainer, make_module, tiny_data, tmp_path / "unbroken", **settings)
    run = tmp_path / "broken"
    with pytest.raises(RuntimeError, match="boom"):
        start(make_trainer, make_module, tiny_data, run, Evaluated(breaks_at=step), **settings)
    assert start(make_trainer, make_module, tiny_data, run, **settings) == [step]
    assert state(run) == state(tmp_path / "unbroken")


def test_it_is_repeated_also_where_it_is_the_last_no_more(
    make_trainer: MakeTrainer, make_module: Any, tiny_data: Any, whole: Path
) -> None:
    run = whole.with_name("broken")
    with pytest.raises(RuntimeError, match="boom"):
        start(make_trainer, make_module, tiny_data, run, Evaluated(breaks_at=60))
    assert start(make_trainer, make_module, tiny_data, run, max_epochs=5) == [60, 80, 100]
    assert start(make_trainer, make_module, tiny_data, whole, max_epochs=5) == [80, 100]
    assert state(run) == state(whole)
