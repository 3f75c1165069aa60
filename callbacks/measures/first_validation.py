"""Validation figures before the first step, which the report compares the last ones with."""

import sys
from itertools import islice
from typing import Any, cast

import lightning as L
import torch

from callbacks.logs import log_now
from callbacks.measures.untrained import kept_figures
from callbacks.stopping.interruption import stop_requested, stop_together


class FirstValidation(L.Callback):
    """Evaluates the validation set when a fresh fit begins, by the module's ``validation_step`` and metric.

    The figures equal those of `train.py validate` for the untrained module. Without effect for one that has no metric
    ``quality``.
    """

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    @property
    def state_key(self) -> str:
        return "FirstValidation"

    def state_dict(self) -> dict[str, Any]:
        return {"figures": self.figures}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.figures = dict(state_dict["figures"])

    def summary(self) -> dict[str, float]:
        """For the report: log key → value before the first step."""
        return dict(self.figures)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step or trainer.ckpt_path is not None or not trainer.enable_validation:
            return
        if getattr(pl_module, "quality", None) is None:
            return
        loop = trainer.fit_loop.epoch_loop.val_loop
        loop.setup_data()
        # A loader with workers draws their seed from the global generator; training must not depend on that.
        with torch.random.fork_rng(devices=[]):
            batches = list(islice(cast(Any, trainer.val_dataloaders), int(min(loop.max_batches[0], sys.maxsize))))
            self.figures = kept_figures(
                trainer, pl_module, lambda: _measured(trainer, pl_module, batches), "validation", batches, learned=True
            )
        log_now(trainer, self.figures)


def _measured(trainer: L.Trainer, module: L.LightningModule, batches: list[Any]) -> dict[str, float]:
    """The metric's figures over some batches; none where there is nothing to count."""
    quality = cast(Any, module).quality
    was_training = module.training
    module.eval()
    with torch.no_grad():
        for i, batch in enumerate(batches):
            if stop_requested(trainer, together=True):
                break
            batch = trainer.precision_plugin.convert_input(batch)
            trainer.strategy.validation_step(trainer.strategy.batch_to_device(batch), i)
        stop_together(trainer)
        figures = {f"val/{name}": float(value) for name, value in quality.compute().items()}
    quality.reset()
    module.train(was_training)
    return {key: value for key, value in figures.items() if value == value}  # NaN: nothing to count
