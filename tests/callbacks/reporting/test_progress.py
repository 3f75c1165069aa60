"""What a run shows: plain lines without a terminal, a live bar on one, the same tidy figures in both."""

import io
import sys
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from callbacks.reporting.progress import RunProgress, shown_figures

MakeTrainer = Callable[..., pl.Trainer]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_figures_have_tidy_names_and_signs() -> None:
    metrics = {
        "relational/pearson_lift": -0.0651,
        "alpha/mean": torch.tensor(0.0213),
        "train/loss": torch.tensor(5.3101),
        "train/loss_step": torch.tensor(4.1),
        "val/loss": float("nan"),
        "other": 1.0,
    }
    assert shown_figures(metrics) == {
        "loss": "4.100",
        "val loss": "nan",
        "alpha": "0.0213",
        "pearson lift": "-0.0651",
    }
    assert shown_figures({}) == {}


def test_without_a_terminal_one_line_an_epoch(
    make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trainer(callbacks=[RunProgress()], enable_progress_bar=True).fit(tiny_module, tiny_data)
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2
    assert out[0].startswith("epoch 1/2  step 20  loss 0.")
    assert out[1].startswith("epoch 2/2  step 40  loss 0.")
    assert "  val loss 0." in out[1]
    assert "  alpha 0.0" in out[1]


def test_a_line_shows_no_figure_of_an_earlier_epoch(
    make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make_trainer(callbacks=[RunProgress()], enable_progress_bar=True, max_epochs=3, check_val_every_n_epoch=2)
    trainer.fit(tiny_module, tiny_data)
    lines = capsys.readouterr().out.splitlines()
    assert ["  val loss 0." in line for line in lines] == [False, True, False]
    assert all("  loss 0." in line for line in lines)


def test_on_a_terminal_a_bar_with_our_figures(
    make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    trainer = make_trainer(callbacks=[RunProgress(leave=True)], enable_progress_bar=True)
    trainer.fit(tiny_module, tiny_data)
    shown = terminal.getvalue()
    assert "Epoch 1/1" in shown
    assert "loss: 0." in shown
    assert "alpha: 0.0" in shown
    assert "v_num" not in shown
    assert "epoch 1/2  step" not in shown


def test_rate_zero_is_silent(
    make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trainer(callbacks=[RunProgress(refresh_rate=0)], enable_progress_bar=True).fit(tiny_module, tiny_data)
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="refresh_rate"):
        RunProgress(refresh_rate=-1)
