"""A training that breaks down: it ends at that step, says where, and nothing of it is saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from callbacks import Divergence, RunCheckpoint
from callbacks.saving.checkpoints import DivergenceError
from callbacks.stopping.divergence import largest_alpha

MakeTrainer = Callable[..., pl.Trainer]


class Poison(pl.Callback):
    """Spoils the gradient of chosen steps, as a bad batch does."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps
        self.taken: list[Tensor] = []

    def on_after_backward(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.global_step in self.steps:
            pl_module.modulator.alpha_logits.grad.fill_(torch.inf)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        self.taken.append(pl_module.modulator.alpha_logits.detach().clone())


def test_a_bad_gradient_ends_the_run_before_its_step(
    tmp_path: Path, make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any
) -> None:
    poison, saver = Poison(7), RunCheckpoint(every_n_train_steps=5)
    with pytest.raises(DivergenceError) as caught:
        make_trainer(callbacks=[poison, Divergence(), saver], enable_checkpointing=True).fit(tiny_module, tiny_data)
    line = str(caught.value)
    assert line.startswith("step 7: the gradient's norm is inf; the loss was ")
    assert largest_alpha(tiny_module) in line
    assert line.endswith("step_00000005.ckpt is the run before it: resume with a smaller model.lr")
    assert torch.equal(tiny_module.modulator.alpha_logits, poison.taken[-1])
    assert len(poison.taken) == 7
    assert [path.name for path in (tmp_path / "run/checkpoints").glob("*.ckpt")] == ["step_00000005.ckpt"]


def test_single_bad_batches_can_be_left_out(
    make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    poison, divergence = Poison(3, 4, 9), Divergence(skip=2)
    make_trainer(callbacks=[poison, divergence], max_epochs=1).fit(tiny_module, tiny_data)
    same = [step for step in range(1, 20) if torch.equal(poison.taken[step], poison.taken[step - 1])]
    assert same == [3, 4, 9]
    assert divergence.summary() == {"skip": 2, "skipped": 3}
    assert capfd.readouterr().err.count("the gradient is inf; the batch is left out") == 3
    with pytest.raises(DivergenceError, match="step 5"):
        make_trainer(callbacks=[Poison(3, 4, 5), Divergence(skip=2)]).fit(type(tiny_module)(), tiny_data)


class Overflow(pl.Callback):
    """Makes the loss infinite from a step on, as T5's activations do in fp16."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 3:
            batch[0].fill_(torch.inf)


def test_fp16_overflows(make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any) -> None:
    """Its scaler skips every step without a word; another precision helps, and a smaller rate does not."""
    fp16 = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=16.0))
    with pytest.raises(DivergenceError) as caught:
        make_trainer(callbacks=[Overflow(), Divergence()], plugins=[fp16]).fit(tiny_module, tiny_data)
    line = str(caught.value)
    assert line.startswith("step 3: the scaled loss is ")
    assert line.endswith("begin with trainer.precision bf16-mixed (--config bf16.yaml)")
    assert "model.lr" not in line


def test_an_infinite_gradient_is_the_scalers(make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any) -> None:
    fp16 = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=16.0))
    make_trainer(callbacks=[Poison(3), Divergence()], plugins=[fp16], max_epochs=1).fit(tiny_module, tiny_data)
    assert fp16.scaler is not None
    assert fp16.scaler.get_scale() == 8.0


def test_what_was_skipped_is_remembered() -> None:
    divergence, again = Divergence(skip=2), Divergence(skip=2)
    divergence.skipped = 3
    again.load_state_dict(divergence.state_dict())
    assert again.summary()["skipped"] == 3
    with pytest.raises(ValueError, match="skip is -1; it must be an integer of at least 0"):
        Divergence(skip=-1)
