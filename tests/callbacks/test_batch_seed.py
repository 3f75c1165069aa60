"""Random numbers of a batch are a function of (seed, epoch, batch, rank)."""

import random
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from callbacks import BatchSeed


class Draw(pl.Callback):
    """What the three generators give in each batch."""

    def __init__(self) -> None:
        self.drawn: list[tuple[float, float, float]] = []

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))


def test_each_batch_draws_its_own_whatever_was_drawn_before(
    make_trainer: Callable[..., pl.Trainer], make_module: Any, tiny_data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")

    def run(used_before: int) -> list[tuple[float, float, float]]:
        torch.manual_seed(used_before)
        draw = Draw()
        make_trainer(callbacks=[BatchSeed(), draw]).fit(make_module(), tiny_data)
        return draw.drawn

    first = run(1)
    assert first == run(2)
    assert len(set(first)) == len(first) == 40
    monkeypatch.setenv("PL_GLOBAL_SEED", "6")
    assert not set(first) & set(run(1))
    # and another rank draws others
    monkeypatch.setattr(pl.Trainer, "global_rank", 1)
    assert not set(first) & set(run(1))
