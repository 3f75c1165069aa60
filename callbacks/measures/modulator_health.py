"""What does a modulator do inside? Gates, simplices and pushes by layer and expert, on batches that train it."""

import math
from contextlib import ExitStack
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor

from callbacks.interfaces import OfModulated, modulated
from callbacks.logs import announce, log_now
from modulant.settings import NonNegativeInt, checked


class ModulatorHealth(OfModulated):
    """Logs `Modulator.observe`'s figures of the first batch, and of every n-th step's.

    It adds no pass: the modulator's figures are computed from the streams of the training step itself, which stays the
    same, bit for bit. The host waits for the device at these steps alone. Padding does not count. Of several ranks the
    figures are the mean of the ranks' own; of several batches a step, those of the first one. A compiled model is not
    observed, which is announced.

    Args:
        every_n_steps: optimizer steps between two observations of the modulator; 0: none.
    """

    @checked
    def __init__(self, every_n_steps: NonNegativeInt = 50) -> None:
        self.every_n_steps = every_n_steps
        self._observing = ExitStack()
        self._seen: dict[str, Tensor] = {}
        self._step = -1

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step = -1
        if self._observable(pl_module) and getattr(pl_module, "compiled", False):
            announce(trainer, "modulator_health: a compiled model is not observed")

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if not self._observable(pl_module) or getattr(pl_module, "compiled", False):
            return
        # Several batches may make one step.
        if step == self._step or (step > 0 and (step + 1) % self.every_n_steps):
            return
        self._step = step
        self._seen = self._observing.enter_context(cast(Any, pl_module).handle.observed())

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._observing.close()
        seen, self._seen = self._seen, {}
        if not seen:
            return
        mean = trainer.strategy.reduce(torch.stack([value.float() for value in seen.values()]), reduce_op="mean")
        found = dict(zip(seen, cast(Tensor, mean).tolist(), strict=True))  # one wait
        # The CV of no volume is no number.
        log_now(trainer, {key: value for key, value in found.items() if math.isfinite(value)}, self._step)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._observing.close()

    def _observable(self, module: L.LightningModule) -> bool:
        """Whether something is attached that can be observed: an adapter cannot."""
        return bool(self.every_n_steps) and hasattr(modulated(module).handle, "observed")
