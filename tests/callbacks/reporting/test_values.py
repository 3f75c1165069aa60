"""Values of a report: plain, finite, without secrets, and in small words."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from callbacks.reporting.environment import command_line, peak_memory, without_secrets
from callbacks.reporting.values import first_and_last, losses, what_happened
from modulant.reports.run.folder import finite
from modulant.reports.wording import duration, number


def test_json_values_are_plain_and_finite() -> None:
    value = {
        1: math.nan,
        "inf": [math.inf, -math.inf, 1.5],
        "tensor": torch.tensor([1.0, math.nan]),
        "numpy": np.float64(0.1),
        "path": Path("a"),
        "flag": True,
        "none": None,
        "tuple": (1, 2),
    }
    assert finite(value) == {
        "1": None,
        "inf": [None, None, 1.5],
        "tensor": [1.0, None],
        "numpy": 0.1,
        "path": "a",
        "flag": True,
        "none": None,
        "tuple": [1, 2],
    }


def test_first_and_last_of_series_and_of_what_no_file_holds() -> None:
    measured = first_and_last({"val/loss": [(0, 3.0), (9, 2.0)], "epoch": [(0, 0.0)]}, {"val/loss": 2.0, "x": 1.0})
    assert measured == {"val/loss": {"first": 3.0, "first_step": 0, "last": 2.0, "last_step": 9}, "x": {"last": 1.0}}
    assert losses(measured) == {"validation": measured["val/loss"]}


def test_secrets_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/someone/train.py", "fit", "--wandb.api_key", "0123abcd"])
    assert command_line() == ["train.py", "fit", "--wandb.api_key", "***"]
    assert without_secrets(["--model.backbone=hf_" + "a" * 30, "https://me:word@host/x", "--data.tokenizer", "t5"]) == [
        "--model.backbone=***",
        "https://***@host/x",
        "--data.tokenizer",
        "t5",
    ]
    assert without_secrets(["--my-password=a b", "--token", "--next", "--max_tokens", "5"]) == [
        "--my-password=***",
        "--token",
        "--next",
        "--max_tokens",
        "5",
    ]


def test_small_words() -> None:
    assert what_happened(ValueError()) == ("failed", "ValueError")
    assert number(-0.06512) == "−0.0651"
    assert number(None) == number(math.nan) == "–"
    assert duration(59.96) == "60.0 s"
    assert peak_memory()["peak_resident_bytes"]
