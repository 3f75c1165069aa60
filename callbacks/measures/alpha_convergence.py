"""Where do the injection strengths settle, and when? α over steps, and the step at which it came to rest."""

from typing import Annotated, Any, cast

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from callbacks.interfaces import layer_alphas, modulated
from callbacks.logs import announce, log_at_validation_end, log_now
from modulant.metrics import AlphaWindow
from modulant.settings import Interval, PositiveFloat, PositiveInt, checked

# 0.29154 is a number that an earlier notebook calls a binding/separation constant; nothing here assumes that it is one.
LANDMARKS = ("0.29154", "0.5", "0.70846")


class AlphaConvergence(L.Callback):
    """Logs α of each modulated layer and expert, and finds the step from which no α moved any more.

    Args:
        every_n_steps: optimizer steps between two checks of alpha.
        window: checks over which no alpha may have moved more than the tolerance.
        tolerance: largest movement, max − min over the window, that counts as converged.
        stop: end the training when alpha has converged.
    """

    @checked
    def __init__(
        self,
        every_n_steps: PositiveInt = 10,
        window: Annotated[int, Interval(minimum=2)] = 20,
        tolerance: PositiveFloat = 0.0005,
        stop: bool = False,
    ) -> None:
        self.every_n_steps, self.stop = every_n_steps, stop
        self.metric = AlphaWindow(window, tolerance)
        self.converged_at: int | None = None
        self.stop_reason: str | None = None
        self._checked_at = -1
        self._latest: dict[str, float] = {}
        self._initial: dict[str, float] = {}

    @property
    def state_key(self) -> str:
        return "AlphaConvergence"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.stop_reason = None
        if modulated(pl_module).modulator is not None and trainer.global_step == 0:
            self._check(trainer, pl_module)
            self._initial = dict(self._latest)
            log_now(trainer, self._latest)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        # Several batches may make one step.
        if modulated(pl_module).modulator is None or step % self.every_n_steps or step == self._checked_at:
            return
        self._check(trainer, pl_module)
        log_now(trainer, self._latest)
        # Of the host, where it is already: a number would be sent to the device, and a bar would ask it back each step.
        pl_module.log("alpha/mean", torch.tensor(self._latest["alpha/mean"]), logger=False)
        rests = self.metric.converged
        if self.stop:  # ranks on other hardware may see other digits, and must not stop one by one
            rests = trainer.strategy.broadcast(rests)
        if not rests:
            return
        if self.converged_at is None:
            self.converged_at = step
        if self.stop:
            trainer.should_stop = True
            if self.stop_reason is None:
                self.stop_reason = (
                    f"AlphaConvergence: no alpha moved more than {self.metric.tolerance:g} over the last "
                    f"{self.metric.window} checks, up to step {step}; mean alpha {self._latest['alpha/mean']:.5f}"
                )
                announce(trainer, self.stop_reason)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if modulated(pl_module).modulator is None or trainer.state.fn != TrainerFn.VALIDATING:
            return
        self._latest = self._figures(pl_module, layer_alphas(pl_module))
        log_at_validation_end(pl_module, self._latest, bar="alpha/mean")

    def state_dict(self) -> dict[str, Any]:
        return {
            "snapshots": list(self.metric.snapshots),
            "converged_at": self.converged_at,
            "stop_reason": self.stop_reason,
            "checked_at": self._checked_at,
            "latest": self._latest,
            "initial": self._initial,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.metric.reset()
        for snapshot in state_dict["snapshots"]:
            self.metric.update(snapshot)
        self.converged_at = state_dict["converged_at"]
        self.stop_reason = state_dict["stop_reason"]
        self._checked_at = state_dict["checked_at"]
        self._latest, self._initial = state_dict["latest"], state_dict["initial"]

    def summary(self) -> dict[str, Any]:
        """For the report: first and last figures, the step of convergence or None, and what was asked."""
        return {
            "initial": self._initial,
            "final": self._latest,
            "converged_at": self.converged_at,
            "moved_in_window": float(self.metric.compute()) if len(self.metric.snapshots) > 1 else None,
            "every_n_steps": self.every_n_steps,
            "window": self.metric.window,
            "tolerance": self.metric.tolerance,
            "stop_reason": self.stop_reason,
        }

    def _check(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._checked_at = trainer.global_step
        alphas = layer_alphas(module)  # one wait for the device, and nothing of a training step waits beside it
        self.metric.update(alphas)
        self._latest = self._figures(module, alphas)

    def _figures(self, module: L.LightningModule, alphas: Tensor) -> dict[str, float]:
        experts: tuple[str, ...] = cast(Any, module).modulator.expert_names
        figures = {}
        for layer, mean, row in zip(modulated(module).layers, alphas.mean(1).tolist(), alphas.tolist(), strict=True):
            figures[f"alpha/layer_{layer:02d}"] = mean
            if len(experts) > 1:
                names = [f"alpha/layer_{layer:02d}_{expert}" for expert in experts]
                figures |= dict(zip(names, row, strict=True))
        mean = alphas.mean().item()
        figures["alpha/mean"] = mean
        return figures | {f"alpha/distance_to_{mark}": abs(mean - float(mark)) for mark in LANDMARKS}
