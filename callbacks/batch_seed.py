"""Chance that does not depend on what came before: a resumed run draws what an unbroken one would have drawn."""

import random
from typing import Any

import lightning as L
import numpy as np
import torch

from callbacks.reporting.environment import seed


class BatchSeed(L.Callback):
    """Seeds Python's, NumPy's and torch's generators anew at each batch, from (seed, epoch, batch, rank)."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        words = (seed() or 0, trainer.current_epoch, batch_idx, trainer.global_rank)
        a, b, c = (int(word) for word in np.random.SeedSequence(words).generate_state(3))
        random.seed(a)
        np.random.seed(b)
        if pl_module.device.type == "cpu":
            # torch.manual_seed keeps a stack trace for each kind of device that is not there, a percent of a step
            torch.default_generator.manual_seed(c)
        else:
            torch.manual_seed(c)
