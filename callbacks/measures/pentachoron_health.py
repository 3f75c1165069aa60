"""Does the shape of the cloud hold? The CV of pentachoron volumes against a reference, and a stop when it drifts."""

import sys
from typing import Annotated, Any, Literal

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.interfaces import OfModulated, modulated
from callbacks.logs import announce, finite_floats, log_at_validation_end, log_now
from callbacks.measures.representations import entry_representations
from callbacks.measures.untrained import kept_figures
from modulant.geometry import BIN_WIDTH, BINS
from modulant.metrics import PentachoronCV
from modulant.settings import Interval, PositiveFloat, PositiveInt, Seed, checked

BAND = 0.21  # the middle of an earlier notebook's "universal band", 0.20 to 0.23


class PentachoronHealth(OfModulated):
    """Measures the CV over all active dimensions at each validation's end; ends a training whose cloud has drifted.

    Unhealthy is a CV further than `tolerance` from the reference; `patience` such checks in a row end the training, not
    counting the one of the untrained modulator. A check comes with each evaluation, which is not each epoch's where
    `trainer.check_val_every_n_epoch` says so. `RunCheckpoint` keeps the last checkpoint that was healthy, and the
    artefact of a run that was stopped here is made of it. A reference that the frozen backbone itself misses would say
    nothing about the training: that is announced at once, and then nothing is stopped.

    Args:
        reference: ``base`` (the frozen backbone's CV), ``band`` (0.21), ``null`` (Gaussian points), or a number. The
            Gaussian points have the same number and per-dimension scale, at each check.
        tolerance: distance from the reference that still counts as healthy.
        patience: unhealthy checks in a row that end the training.
        stop: end the training; false only measures.
        n: draws of five entries.
        seed: of the draws, the same at each check.
        null_repeats: Gaussian clouds behind the null and the z-score.
    """

    @checked
    def __init__(
        self,
        reference: Literal["base", "band", "null"] | PositiveFloat = "base",
        tolerance: PositiveFloat = 0.05,
        patience: PositiveInt = 3,
        stop: bool = True,
        n: Annotated[int, Interval(minimum=2)] = 1000,
        seed: Seed = 42,
        null_repeats: Annotated[int, Interval(minimum=2)] = 20,
    ) -> None:
        self.reference, self.tolerance, self.patience, self.stop = reference, tolerance, patience, stop
        self.metric = PentachoronCV(n, seed, null_repeats)
        self.stop_reason: str | None = None
        self.out_from_the_start: str | None = None
        self._base: dict[str, float] = {}
        self._history: list[dict[str, float]] = []
        self._volumes: dict[str, list[float]] = {}  # histograms: of the original, the modulated, and the latter's null

    @property
    def state_key(self) -> str:
        return "PentachoronHealth"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.stop_reason = None
        self._measure_base(trainer, pl_module)
        if trainer.global_step == 0:
            figures = self._check(trainer, pl_module)
            log_now(trainer, self._base_figures() | figures)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._measure_base(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        figures = self._check(trainer, pl_module)
        if trainer.state.fn == TrainerFn.VALIDATING:
            figures |= self._base_figures()
        log_at_validation_end(pl_module, figures)
        if trainer.state.fn == TrainerFn.FITTING and self.stop:
            # Ranks on other hardware may see other digits, and must not stop one by one: the first one decides.
            reason = trainer.strategy.broadcast(self._drifted())
            if reason is not None:
                self._end(trainer, reason)

    def state_dict(self) -> dict[str, Any]:
        return {
            "base": self._base,
            "history": self._history,
            "volumes": self._volumes,
            "stop_reason": self.stop_reason,
            "out_from_the_start": self.out_from_the_start,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._base, self._history = state_dict["base"], state_dict["history"]
        self._volumes = state_dict.get("volumes", {})
        self.stop_reason, self.out_from_the_start = state_dict["stop_reason"], state_dict["out_from_the_start"]

    @property
    def last_healthy_step(self) -> int | None:
        """Step of the last check that was healthy, if any was; None where nothing is stopped."""
        if not self.stop or self.out_from_the_start is not None:
            return None
        return max((int(check["step"]) for check in self._history if check.get("healthy") == 1.0), default=None)

    def summary(self) -> dict[str, Any]:
        """For the report: the base's figures, those of each check with its step, and what was asked."""
        return {
            "reference": self.reference,
            "tolerance": self.tolerance,
            "patience": self.patience,
            "stop": self.stop,
            "base": self._base,
            "first": self._history[0] if self._history else None,
            "last": self._history[-1] if self._history else None,
            "history": self._history,
            "volumes": {"unit": "mean volume", "bin_width": BIN_WIDTH, **self._volumes} if self._volumes else None,
            "healthy": self._history[-1].get("healthy", 1.0) == 1.0 if self._history else None,
            "out_from_the_start": self.out_from_the_start,
            "stop_reason": self.stop_reason,
        }

    def _measure_base(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if modulated(module).handle is not None:
            self._base = self._figures(trainer, module, base=True)
            self._judge_start(trainer, self._base, "the frozen backbone's own")

    def _judge_start(self, trainer: L.Trainer, figures: dict[str, float], whose: str) -> None:
        reference = self._reference(figures)
        if self.reference == "base" or self.out_from_the_start is not None or reference is None or "cv" not in figures:
            return
        if abs(figures["cv"] - reference) > self.tolerance:
            self.out_from_the_start = (
                f"PentachoronHealth: {whose} CV is {figures['cv']:.4f}, more than {self.tolerance:g} from the "
                f"reference {reference:.4f} ({self.reference}); it is measured, but stops nothing"
            )
            if trainer.is_global_zero:
                print(self.out_from_the_start, file=sys.stderr, flush=True)

    def _check(self, trainer: L.Trainer, module: L.LightningModule) -> dict[str, float]:
        figures = self._figures(trainer, module, base=False)
        if modulated(module).handle is None and not self._history:
            self._judge_start(trainer, figures, "the encoder's first")
        reference = self._reference(figures)
        if reference is not None:
            figures["reference"] = reference
            # the band in which it is healthy, for whoever draws it
            figures |= {"low": reference - self.tolerance, "high": reference + self.tolerance}
            # A CV that is no number (all draws flat) is no healthy one.
            figures["healthy"] = float("cv" in figures and abs(figures["cv"] - reference) <= self.tolerance)
        self._history.append({"step": trainer.global_step, **figures})
        return {f"pentachoron/{key}": value for key, value in figures.items()}

    def _drifted(self) -> str | None:
        """Why the training should end, if it should."""
        checks = [check for check in self._history if check["step"] > 0][-self.patience :]
        if self.out_from_the_start is not None or len(checks) < self.patience:
            return None
        if any(check.get("healthy", 1.0) for check in checks):
            return None
        last = checks[-1]
        return (
            f"PentachoronHealth: the CV of pentachoron volumes, {last.get('cv', float('nan')):.4f} at step "
            f"{int(last['step'])}, was more than {self.tolerance:g} from its reference {last['reference']:.4f} "
            f"({self.reference}) at {self.patience} checks in a row"
        )

    def _end(self, trainer: L.Trainer, reason: str) -> None:
        trainer.should_stop = True
        if self.stop_reason is None:
            self.stop_reason = reason
            announce(trainer, reason)

    def _reference(self, figures: dict[str, float]) -> float | None:
        match self.reference:
            case "base":
                return self._base.get("cv")
            case "band":
                return BAND
            case "null":
                return figures.get("null")
        return float(self.reference)

    def _figures(self, trainer: L.Trainer, module: L.LightningModule, base: bool) -> dict[str, float]:
        active, metric = modulated(module).active_dims, self.metric
        if base or trainer.global_step == 0:
            settings = "pentachoron", active.cpu(), metric.n, metric.seed, metric.null_repeats
            found = kept_figures(
                trainer, module, lambda: self._measured(trainer, module, base), *settings, learned=not base
            )
        else:
            found = self._measured(trainer, module, base)
        for kind, whose in (("histogram", "original" if base else "modulated"), ("null_histogram", "null")):
            self._volumes[whose] = [found[key] for place in range(BINS) if (key := f"{kind}/{place}") in found]
        names = {"cv": "cv", "z": "z", "null_mean": "null", "null_sd": "null_sd", "mean_volume": "mean_volume"}
        return {name: found[key] for key, name in names.items() if key in found}

    def _measured(self, trainer: L.Trainer, module: L.LightningModule, base: bool) -> dict[str, float]:
        """The metric's figures; of histograms each bin is one."""
        points = entry_representations(trainer, module, base)
        points = points[:, modulated(module).active_dims.to(points.device)]
        self.metric.to("cpu" if points.device.type == "mps" else points.device)  # Apple's GPU has no fp64
        self.metric.reset()
        self.metric.update(points)
        found = self.metric.compute()
        bins = {
            f"{kind}/{place}": share
            for kind in ("histogram", "null_histogram")
            for place, share in enumerate(found.pop(kind).tolist())
        }
        return finite_floats(found) | bins

    def _base_figures(self) -> dict[str, float]:
        return {f"pentachoron/original/{key}": value for key, value in self._base.items()}
