"""Reseed at every batch, so that a resumed run draws the same random numbers as an uninterrupted one."""

import random
from typing import Any

import lightning as L
import numpy as np
import torch

from callbacks.reporting.environment import seed


class BatchSeed(L.Callback):
    """Reseeds Python's, NumPy's and torch's generators at each batch, from (seed, epoch, batch, rank)."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        words = (seed() or 0, trainer.current_epoch, batch_idx, trainer.global_rank)
        a, b, c = (int(word) for word in np.random.SeedSequence(words).generate_state(3))
        random.seed(a)
        np.random.seed(b)
        if pl_module.device.type == "cpu":
            # torch.manual_seed records a stack trace for each absent device type, 1% of a step
            torch.default_generator.manual_seed(c)
        else:
            torch.manual_seed(c)
