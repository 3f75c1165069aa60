"""Where do the injection strengths settle, and when? α over steps, and the step at which it came to rest."""

import math
from typing import Annotated, Any, cast

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer

from callbacks.interfaces import OfModulated, layer_alphas, modulated
from callbacks.logs import announce, log_at_validation_end, log_now
from modulant.metrics import AlphaWindow
from modulant.settings import Interval, PositiveFloat, PositiveInt, checked

# 0.29154 is a number that an earlier notebook calls a binding/separation constant; nothing here assumes that it is one.
LANDMARKS = ("0.29154", "0.5", "0.70846")


class AlphaConvergence(OfModulated):
    """Logs α of each modulated layer and expert, and finds the step from which no α moved any more.

    At a small learning rate α cannot move by the tolerance, whatever the data, and at a rate of zero not at all. So α
    has converged only where it also stays closer together than a random walk of the optimizer's steps would
    (`AlphaWindow`); where it does not, the report says whether the rate or the end of its schedule keeps α still.

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
        self._rate, self._rates, self._squared_rates, self._largest_rate = 0.0, 0.0, 0.0, 0.0
        self._reach: list[Tensor] = []  # between checks: how far Adam could have moved each α, all steps one way
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

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        logits = getattr(modulated(pl_module).modulator, "alpha_logits", None)
        for group in optimizer.param_groups:
            if any(parameter is logits for parameter in group["params"]):
                # Adam and its kin, which know betas, move a parameter by about their rate.
                self._rate = float(group["lr"]) if "betas" in group else math.nan
                self._rates += self._rate
                self._squared_rates += self._rate**2
                self._largest_rate = max(self._largest_rate, self._rate)

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
        # An α that never moved has not come to rest: its gradient is none, or rounding takes each step back.
        rests = self.metric.converged and self._latest != self._initial
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
                    f"{self.metric.window} checks, up to step {step}, less than a random walk of the same steps; mean "
                    f"alpha {self._latest['alpha/mean']:.5f}"
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
            "walks": list(self.metric.walks),
            "reach": list(self._reach),
            "rates": [self._rate, self._rates, self._squared_rates, self._largest_rate],
            "converged_at": self.converged_at,
            "stop_reason": self.stop_reason,
            "checked_at": self._checked_at,
            "latest": self._latest,
            "initial": self._initial,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.metric.reset()
        snapshots = state_dict["snapshots"]
        # Of an older version, which knew no walks: nothing has converged until they are known.
        walks = state_dict.get("walks", [torch.zeros_like(snapshot) for snapshot in snapshots])
        for snapshot, walk in zip(snapshots, walks, strict=True):
            self.metric.update(snapshot, walk)
        self._reach = list(state_dict.get("reach", []))
        self._rate, self._rates, self._squared_rates, self._largest_rate = state_dict.get("rates", (0.0, 0.0, 0.0, 0.0))
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
            "checks": len(self.metric.snapshots),
            "moved_in_window": float(self.metric.compute()) if len(self.metric.snapshots) > 1 else None,
            "reach_in_window": _number(float(torch.stack(self._reach[1:]).sum(0).max())) if self._reach[1:] else None,
            "walk_in_window": _number(self.metric.walk),
            "rate_share": _number(self._rate / self._largest_rate) if self._largest_rate else None,
            "every_n_steps": self.every_n_steps,
            "window": self.metric.window,
            "tolerance": self.metric.tolerance,
            "stop_reason": self.stop_reason,
        }

    def _check(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._checked_at = trainer.global_step
        # One wait for the device, and nothing of a training step waits beside it.
        alphas, slopes = layer_alphas(module, _slopes(module))
        self.metric.update(alphas, self._squared_rates * slopes.square())
        # As many as snapshots: a run that is resumed with other layers begins anew.
        self._reach = [*self._reach, self._rates * slopes][-len(self.metric.snapshots) :]
        self._rates = self._squared_rates = 0.0
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


def _slopes(module: L.LightningModule) -> Tensor:
    """Σ |dα/dθ| over the logits behind each α: how far α moves where each of these moves by one. Zero: none learns."""
    modulator: Any = modulated(module).modulator
    logits = getattr(modulator, "alpha_logits", None)
    with torch.enable_grad():
        wanted: Tensor = modulator.alphas[list(modulated(module).layers)]
        if not isinstance(logits, nn.Parameter) or not wanted.requires_grad:
            return torch.zeros_like(wanted)
        found = [torch.autograd.grad(alpha, logits, retain_graph=True)[0].abs().sum() for alpha in wanted.flatten()]
    return torch.stack(found).view(wanted.shape)


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
