"""End a training whose loss or gradient is not finite, and name the place; nothing of it is saved."""

import sys
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from callbacks.interfaces import layer_alphas, modulated
from callbacks.saving.checkpoints import DivergenceError, not_finite
from modulant.backbones.families import parts_of
from modulant.settings import NonNegativeInt, checked


class Divergence(L.Callback):
    """Looks at the norm of the whole gradient before each optimizer step; where it is not finite, the run ends.

    A loss that is not finite leaves no finite gradient (`FrozenModel` sees to that), and the gradient is the same on
    all ranks, so all end at the same step. Under fp16's loss scaling, which expects infinite gradients, it looks at the
    loss, summed over all ranks. On a CUDA device the norm is looked at one step later, when it has reached the host by
    itself: waiting for it would cost more than the step that is lost.

    Args:
        skip: bad batches in a row to leave out, without a step, before a broken training ends.
    """

    @checked
    def __init__(self, skip: NonNegativeInt = 0) -> None:
        self.skip = skip
        self.skipped = 0
        self._in_a_row = 0
        self._batch: Any = None
        self._losses: list[Tensor] = []  # of the batches since the last step, under fp16's loss scaling
        self._pending: tuple[int, Tensor, torch.cuda.Event | None] | None = None

    @property
    def state_key(self) -> str:
        return "Divergence"

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped, "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped, self._in_a_row = state_dict["skipped"], state_dict["in_a_row"]

    def summary(self) -> dict[str, int]:
        """For the report."""
        return {"skip": self.skip, "skipped": self.skipped}

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch = batch

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        if trainer.scaler is not None:
            self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        norm: Any
        if trainer.scaler is None:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            norm = nn.utils.get_total_norm(gradients)
        else:
            # fp16's loss scaling expects infinite gradients, and skips them itself until the scale fits. No scale mends
            # a loss that is not finite.
            norm = trainer.strategy.reduce(torch.stack(self._losses).float().sum(), reduce_op="sum")
            self._losses = []
        if norm.is_cuda and not self.skip:
            previous, self._pending = self._pending, _on_its_way(trainer.global_step, norm)
            if previous is not None:
                step, norm, event = previous
                if event is not None:
                    event.synchronize()
                self._judge(trainer, pl_module, step, norm)
            return
        self._judge(trainer, pl_module, trainer.global_step, norm)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._batch = None

    def _judge(self, trainer: L.Trainer, module: L.LightningModule, step: int, norm: Tensor) -> None:
        if bool(norm.isfinite()):
            self._in_a_row = 0
            return
        self._in_a_row += 1
        if self._in_a_row > self.skip:
            raise DivergenceError(self._told(trainer, module, step, float(norm)))
        self.skipped += 1
        for parameter in module.parameters():
            parameter.grad = None  # which an optimizer takes for no part of its step
        if trainer.is_global_zero:
            what = "gradient" if trainer.scaler is None else "scaled loss"
            line = f"step {step}: the {what} is {float(norm)}; the batch is left out ({self.skipped} so far)"
            print(line, file=sys.stderr, flush=True)

    def _told(self, trainer: L.Trainer, module: L.LightningModule, step: int, norm: float) -> str:
        loss = trainer.callback_metrics.get("train/loss")
        fp16 = trainer.scaler is not None
        what = "scaled loss" if fp16 else "gradient's norm"
        said = [f"step {step}: the {what} is {norm}"]
        said += [f"the loss was {float(loss):.4g}"] if loss is not None and not fp16 else []
        said.append(self._where(module))
        if getattr(module, "modulator", None) is not None:
            said.append(largest_alpha(module))
        saved = [path for callback in _callbacks(trainer) if (path := getattr(callback, "newest", None))]
        name = saved[0].name if saved else ""
        # T5's activations are beyond fp16's largest number, 65504, whatever the learning rate.
        advice = "trainer.precision bf16-mixed (--config bf16.yaml)" if fp16 else "a smaller model.lr"
        said.append(
            f"nothing of this is saved, {name} is the run before it: resume with {advice}"
            if name
            else f"nothing was saved yet: begin with {advice}"
        )
        return "; ".join(said)

    def _where(self, module: L.LightningModule) -> str:
        """The first place where the batch is not finite, found by passing it through once more."""
        if weight := not_finite(module):
            return f"{weight} is not finite"
        unknown = "no layer is known to be at fault"
        try:
            parts = parts_of(module.model)  # type: ignore[arg-type]
        except (AttributeError, ValueError):
            return unknown
        if self._batch is None:
            return unknown
        side = parts.family.side
        bad: list[int] = []

        def look(layer: int) -> Any:
            def hook(block: nn.Module, inputs: Any, output: Any) -> None:
                hidden = output[0] if isinstance(output, tuple) else output
                if not bool(hidden.isfinite().all()):
                    bad.append(layer)

            return hook

        hooks = [block.register_forward_hook(look(layer)) for layer, block in enumerate(parts.blocks)]
        try:
            with torch.no_grad():
                encode = getattr(module, "encode", None)
                if encode is None:  # of a T5 in pre-training
                    module(self._batch)
                else:
                    encode(self._batch["input_ids"], self._batch["attention_mask"])
        finally:
            for hook in hooks:
                hook.remove()
        return (
            f"first not finite in {side} layer {bad[0]}"
            if bad
            else f"the {side}'s layers are finite, what follows is not"
        )


def _on_its_way(step: int, norm: Tensor) -> tuple[int, Tensor, torch.cuda.Event]:
    """A copy to the host that nobody waits for."""
    copy = torch.empty((), dtype=norm.dtype, pin_memory=True).copy_(norm.detach(), non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return step, copy, event


def largest_alpha(module: L.LightningModule) -> str:
    """The largest α, with its layer and expert."""
    alphas = layer_alphas(module)
    at = int(alphas.nan_to_num(nan=torch.inf).argmax())
    layer = list(modulated(module).layers)[at // alphas.shape[1]]
    names = getattr(modulated(module).modulator, "expert_names", ())
    expert = f", {names[at % alphas.shape[1]]}" if len(names) > 1 else ""
    return f"the largest alpha is {float(alphas.flatten()[at]):.4f} (layer {layer}{expert})"


def _callbacks(trainer: L.Trainer) -> list[Any]:
    return list(trainer.callbacks)  # type: ignore[attr-defined]
