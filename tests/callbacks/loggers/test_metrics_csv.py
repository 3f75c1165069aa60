"""The run's CSV: columns that grow, rows that stay, kills that cut a line, and a real Trainer that resumes."""

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from callbacks.loggers.metrics_csv import MetricsCSV
from callbacks.reporting.report import RunReport
from callbacks.saving.checkpoints import RunCheckpoint
from callbacks.saving.files import AtomicCheckpointIO, newest_checkpoint
from modulant.reports.series import read_metrics, read_rows

MakeTrainer = Callable[..., pl.Trainer]


def table(path: Path) -> list[dict[str, str]]:
    """An independent reading: every row must have every column."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert all(len(row) == len(rows[0]) for row in rows)
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def test_columns_grow_and_old_rows_are_padded(tmp_path: Path) -> None:
    logger = MetricsCSV(str(tmp_path / "run"))
    logger.log_metrics({"epoch": 0, "train/loss": 1.5}, step=0)
    logger.log_metrics({"epoch": 0, "val/loss": torch.tensor(2.0), "train/loss": 0.1}, step=4)
    logger.log_metrics({"alpha/mean": float("nan"), "flag": True}, step=9)
    assert table(logger.path) == [
        {"step": "0", "epoch": "0", "train/loss": "1.5", "val/loss": "", "alpha/mean": "", "flag": ""},
        {"step": "4", "epoch": "0", "train/loss": "0.1", "val/loss": "2.0", "alpha/mean": "", "flag": ""},
        {"step": "9", "epoch": "", "train/loss": "", "val/loss": "", "alpha/mean": "nan", "flag": "1"},
    ]
    assert [path.name for path in logger.path.parent.iterdir()] == ["metrics.csv"]
    series = read_metrics(logger.path)
    assert series["train/loss"] == [(0, 1.5), (4, 0.1)]
    assert series["val/loss"] == [(4, 2.0)]


def test_a_known_row_costs_one_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = MetricsCSV(str(tmp_path))
    logger.log_metrics({"epoch": 0, "loss": 1.0}, step=0)
    inode = logger.path.stat().st_ino
    monkeypatch.setattr(os, "replace", lambda *paths: pytest.fail("the file was rewritten"))
    for step in range(1, 50):
        logger.log_metrics({"epoch": 0, "loss": 1.0}, step=step)
    assert logger.path.stat().st_ino == inode
    assert len(table(logger.path)) == 50


def test_full_precision_survives(tmp_path: Path) -> None:
    logger = MetricsCSV(str(tmp_path))
    value = 0.1 + 0.2
    logger.log_metrics({"x": value}, step=0)
    assert read_metrics(logger.path)["x"] == [(0, value)]


def test_kill_in_a_rewrite_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = MetricsCSV(str(tmp_path))
    logger.log_metrics({"loss": 1.0}, step=0)
    before = logger.path.read_bytes()

    def killed(*paths: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        logger.log_metrics({"new": 1.0}, step=1)
    assert logger.path.read_bytes() == before


def test_line_cut_by_a_kill_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,epoch,loss\n0,0,1.5\n1,0,1.")
    assert read_metrics(path)["loss"] == [(0, 1.5)]
    logger = MetricsCSV(str(tmp_path))
    logger.log_metrics({"epoch": 0, "loss": 1.25}, step=1)
    assert read_metrics(path)["loss"] == [(0, 1.5), (1, 1.25)]


def test_resume_keeps_rows_before_the_step_and_loses_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = MetricsCSV(str(tmp_path))
    for step in range(6):
        first.log_metrics({"epoch": 0, "loss": float(step)}, step=step)
    second = MetricsCSV(str(tmp_path))
    second.log_metrics({"early": 1.0}, step=3)  # logged before anyone knew the step: it is this run's own
    second.resume_at(4)
    second.log_metrics({"epoch": 1, "loss": 40.0}, step=4)
    series = read_metrics(tmp_path / "metrics.csv")
    assert series["loss"] == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    assert series["early"] == [(3, 1.0)]
    assert read_metrics(tmp_path / "metrics_superseded.csv")["loss"] == [(4, 4.0), (5, 5.0)]
    assert "2 rows from step 4 on" in capsys.readouterr().err


def test_evaluation_writes_a_file_of_its_own(tmp_path: Path) -> None:
    trained = MetricsCSV(str(tmp_path))
    trained.log_metrics({"loss": 1.0}, step=0)
    for value in (2.0, 3.0):
        evaluation = MetricsCSV(str(tmp_path))
        evaluation.redirect("metrics_validate.csv")
        evaluation.log_metrics({"loss": value}, step=0)
    assert read_metrics(tmp_path / "metrics.csv")["loss"] == [(0, 1.0)]
    assert read_metrics(tmp_path / "metrics_validate.csv")["loss"] == [(0, 3.0)]


@pytest.mark.parametrize(
    ("text", "says"),
    [("time,loss\n0,1\n", "column 'step'"), ("step,loss\n0,abc\n", "column 'loss': no number: 'abc'")],
)
def test_a_foreign_file_is_told_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match=says):
        read_metrics(tmp_path / "metrics.csv")


def test_missing_file_has_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "metrics.csv") == ([], [])
    assert read_metrics(tmp_path / "metrics.csv") == {}


def test_bad_filename_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="filename"):
        MetricsCSV(str(tmp_path), filename="../metrics.csv")


def test_a_real_run_logs_here_and_its_folder_is_the_log_folder(
    tmp_path: Path, make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any
) -> None:
    trainer = make_trainer(logger=MetricsCSV(str(tmp_path / "run")))
    trainer.fit(tiny_module, tiny_data)
    assert trainer.log_dir == str(tmp_path / "run")
    series = read_metrics(tmp_path / "run" / "metrics.csv")
    # Lightning counts from 0 when it logs: every fifth step of 40, validation at each epoch's last
    assert [step for step, _ in series["train/loss"]] == [4, 9, 14, 19, 24, 29, 34, 39]
    assert [step for step, _ in series["val/loss"]] == [19, 39]
    assert series["alpha/mean"][-1][1] > series["alpha/mean"][0][1]


@pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable")
def test_a_resumed_run_goes_on_in_the_same_file(
    tmp_path: Path, make_trainer: MakeTrainer, make_module: Any, tiny_data: Any, explode: Any
) -> None:
    def trainer(*more: pl.Callback) -> pl.Trainer:
        checkpoint = RunCheckpoint(every_n_train_steps=10, save_on_exception=False)
        return make_trainer(
            logger=MetricsCSV(str(tmp_path / "run")),
            callbacks=[*more, RunReport(), checkpoint],
            enable_checkpointing=True,
            plugins=[AtomicCheckpointIO()],
            log_every_n_steps=1,
        )

    with pytest.raises(RuntimeError, match="boom"):
        trainer(explode(37, RuntimeError("boom"))).fit(make_module(), tiny_data)
    path = tmp_path / "run" / "metrics.csv"
    before = read_metrics(path)["train/loss"]
    assert [step for step, _ in before] == list(range(36))
    trainer().fit(make_module(), tiny_data, ckpt_path=str(newest_checkpoint(tmp_path / "run")))
    after = read_metrics(path)
    assert [step for step, _ in after["train/loss"]] == list(range(40))
    assert after["train/loss"][:30] == before[:30]
    assert [step for step, _ in after["val/loss"]] == [19, 39]
