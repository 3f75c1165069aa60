"""RunCheckpoint: when it saves, what it keeps, and the result of a run; with a real Trainer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from callbacks.saving.checkpoints import RunCheckpoint, result_of
from callbacks.saving.files import AtomicCheckpointIO, CheckpointError, load_verified, newest_checkpoint

MakeTrainer = Callable[..., pl.Trainer]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"every_n_train_steps": -1}, "every_n_train_steps"),
        ({"every_n_epochs": 0}, "every_n_epochs"),
        ({"save_top_k": 0}, "save_top_k"),
        ({"save_top_k": -2}, "save_top_k"),
    ],
)
def test_bad_settings_name_the_argument(arguments: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RunCheckpoint(**arguments)


def fit(make_trainer: MakeTrainer, module: Any, data: Any, checkpoint: RunCheckpoint, **more: Any) -> pl.Trainer:
    ckpt_path = more.pop("ckpt_path", None)
    callbacks = [*more.pop("callbacks", []), checkpoint]
    trainer = make_trainer(callbacks=callbacks, enable_checkpointing=True, plugins=[AtomicCheckpointIO()], **more)
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return trainer


def kept(folder: Path) -> list[str]:
    return [name for name in names(folder / "checkpoints") if name.endswith(".ckpt")]


def test_keeps_the_newest_two_and_one_where_training_ends(
    tmp_path: Path, make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any
) -> None:
    trainer = fit(make_trainer, tiny_module, tiny_data, RunCheckpoint(every_n_train_steps=15))
    # 40 steps: saved at 15, 30 and at the end
    assert kept(tmp_path / "run") == ["step_00000030.ckpt", "step_00000040.ckpt"]
    assert trainer.checkpoint_callback is not None
    assert newest_checkpoint(tmp_path / "run").name == "step_00000040.ckpt"


def test_saves_at_the_end_of_epochs_by_default(
    tmp_path: Path, make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any
) -> None:
    fit(make_trainer, tiny_module, tiny_data, RunCheckpoint(save_top_k=-1), max_epochs=3)
    assert kept(tmp_path / "run") == ["step_00000020.ckpt", "step_00000040.ckpt", "step_00000060.ckpt"]


def test_resumed_run_keeps_two(
    tmp_path: Path, make_trainer: MakeTrainer, make_module: Any, tiny_data: Any, explode: Any
) -> None:
    def same_start() -> Any:
        torch.manual_seed(0)
        return make_module()

    whole = same_start()
    fit(make_trainer, whole, tiny_data, RunCheckpoint(), max_epochs=3, default_root_dir=str(tmp_path / "whole"))

    often = RunCheckpoint(every_n_train_steps=10, save_on_exception=False)
    boom = explode(35, RuntimeError("boom"))
    with pytest.raises(RuntimeError, match="boom"):
        fit(make_trainer, same_start(), tiny_data, often, max_epochs=3, callbacks=[boom])
    assert kept(tmp_path / "run") == ["step_00000020.ckpt", "step_00000030.ckpt"]
    # the newest was cut short, and a kill left a temporary file
    newest = tmp_path / "run" / "checkpoints" / "step_00000030.ckpt"
    newest.write_bytes(newest.read_bytes()[:100])
    (newest.parent / ".step_00000040.ckpt.123.tmp").write_bytes(b"half")

    found = newest_checkpoint(tmp_path / "run")
    assert found.name == "step_00000020.ckpt"
    # another interval than before, and the folder is not empty: neither may warn
    resumed = same_start()
    trainer = fit(make_trainer, resumed, tiny_data, RunCheckpoint(), max_epochs=3, ckpt_path=str(found))
    assert trainer.global_step == 60
    assert torch.equal(resumed.modulator.alphas, whole.modulator.alphas)
    assert kept(tmp_path / "run") == ["step_00000040.ckpt", "step_00000060.ckpt"]
    assert "step_00000030.ckpt.superseded" in names(newest.parent)
    assert not list(newest.parent.glob(".*.tmp"))


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_saves_on_exception(
    tmp_path: Path, make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any, explode: Any, error: BaseException
) -> None:
    with pytest.raises((RuntimeError, SystemExit)):
        fit(make_trainer, tiny_module, tiny_data, RunCheckpoint(), callbacks=[explode(33, error)])
    assert kept(tmp_path / "run") == ["step_00000020.ckpt", "step_00000033.ckpt"]
    assert load_verified(newest_checkpoint(tmp_path / "run"))["global_step"] == 33


def test_save_on_exception_can_be_off(
    tmp_path: Path, make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any, explode: Any
) -> None:
    with pytest.raises(RuntimeError):
        fit(
            make_trainer, tiny_module, tiny_data, RunCheckpoint(save_on_exception=False),
            callbacks=[explode(33, RuntimeError("boom"))],
        )  # fmt: skip
    assert kept(tmp_path / "run") == ["step_00000020.ckpt"]


class Poison(pl.Callback):
    """Makes a parameter NaN, as a diverged run does."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == 25:
            pl_module.modulator.alpha_logits.data[0, 0] = float("nan")


def test_never_saves_nan(tmp_path: Path, make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any) -> None:
    with pytest.raises(CheckpointError, match=r"step 40: modulator\.alpha_logits is not finite"):
        fit(make_trainer, tiny_module, tiny_data, RunCheckpoint(), callbacks=[Poison()])
    assert kept(tmp_path / "run") == ["step_00000020.ckpt"]


def test_refuses_a_folder_that_holds_another_run(
    tmp_path: Path, make_trainer: MakeTrainer, make_module: Any, tiny_data: Any
) -> None:
    fit(make_trainer, make_module(), tiny_data, RunCheckpoint(), max_epochs=1)
    with pytest.raises(CheckpointError, match="already holds checkpoints"):
        fit(make_trainer, make_module(), tiny_data, RunCheckpoint(), max_epochs=1)


class Scripted(pl.Callback):
    """Logs a score at each validation's end, and says which checks were healthy and when it stopped the run."""

    def __init__(self, scores: list[float], healthy: int | None = None, stops: bool = False) -> None:
        self.scores, self.last_healthy_step, self.stops = iter(scores), healthy, stops
        self.stop_reason: str | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            pl_module.log("score", next(self.scores))
            if self.stops and trainer.current_epoch == 4:
                trainer.should_stop, self.stop_reason = True, "it drifted"


@pytest.mark.parametrize(("mode", "best"), [("max", [40, 60]), ("min", [20, 80])])
def test_the_best_are_kept_beside_the_newest(
    tmp_path: Path, make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any, mode: str, best: list[int]
) -> None:
    checkpoint = RunCheckpoint(monitor="score", mode=mode)  # type: ignore[arg-type]
    scores = Scripted([0.1, 0.9, 0.8, 0.2, float("nan"), 0.5, 0.5])
    trainer = fit(make_trainer, tiny_module, tiny_data, checkpoint, max_epochs=7, callbacks=[scores])
    assert kept(tmp_path / "run") == [f"step_{step:08d}.ckpt" for step in [*best, 120, 140]]
    assert newest_checkpoint(tmp_path / "run").name == "step_00000140.ckpt", "to resume from"
    winner = 40 if mode == "max" else 20
    assert checkpoint.best_model_path.endswith(f"step_{winner:08d}.ckpt")
    result = result_of(trainer)
    assert (result.step, result.checkpoint) == (winner, tmp_path / "run" / "checkpoints" / f"step_{winner:08d}.ckpt")
    assert (
        result.reason
        == f"score is the {'highest' if mode == 'max' else 'lowest'} there, {0.9 if winner == 40 else 0.1:.4f}"
    )


def test_a_best_validation_between_two_checkpoints_is_saved_too(
    tmp_path: Path, make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any
) -> None:
    checkpoint = RunCheckpoint(every_n_train_steps=16, save_top_k=1, monitor="score", mode="max")
    scores = Scripted([0.1, 0.9, 0.3, 0.2])  # after steps 10, 20, 30 and 40
    fit(make_trainer, tiny_module, tiny_data, checkpoint, max_epochs=2, callbacks=[scores], val_check_interval=10)
    assert kept(tmp_path / "run") == ["step_00000020.ckpt", "step_00000040.ckpt"]


def test_an_epoch_without_a_validation_has_no_score(
    tmp_path: Path, make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any
) -> None:
    checkpoint = RunCheckpoint(save_top_k=1, monitor="score", mode="max")
    scores = Scripted([0.9, 0.1, 0.2])  # after epochs 2, 4 and 5, the last
    trainer = fit(
        make_trainer, tiny_module, tiny_data, checkpoint, max_epochs=5, check_val_every_n_epoch=2, callbacks=[scores]
    )
    assert kept(tmp_path / "run") == ["step_00000040.ckpt", "step_00000100.ckpt"]
    newest = load_verified(newest_checkpoint(tmp_path / "run"))
    assert newest["callbacks"]["RunCheckpoint"]["scores"].keys() == {40, 80, 100}
    assert result_of(trainer).step == 40


def test_a_resumed_run_knows_its_best(
    tmp_path: Path, make_trainer: MakeTrainer, make_module: Any, tiny_data: Any
) -> None:
    def checkpoint() -> RunCheckpoint:
        return RunCheckpoint(save_top_k=1, monitor="score", mode="max")

    fit(make_trainer, make_module(), tiny_data, checkpoint(), max_epochs=3, callbacks=[Scripted([0.9, 0.1, 0.2])])
    assert kept(tmp_path / "run") == ["step_00000020.ckpt", "step_00000060.ckpt"]
    newest = newest_checkpoint(tmp_path / "run")
    trainer = fit(
        make_trainer, make_module(), tiny_data, checkpoint(),
        max_epochs=5, callbacks=[Scripted([0.3, 0.4])], ckpt_path=str(newest),
    )  # fmt: skip
    assert kept(tmp_path / "run") == ["step_00000020.ckpt", "step_00000100.ckpt"]
    assert result_of(trainer).step == 20


def test_what_is_never_logged_is_named(make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any) -> None:
    with pytest.raises(
        CheckpointError, match=r"checkpoint\.monitor: nothing is logged as 'val/los'; nearest: val/loss"
    ):
        fit(make_trainer, tiny_module, tiny_data, RunCheckpoint(monitor="val/los"))


@pytest.mark.parametrize(
    ("healthy", "monitor", "step"), [(20, None, 20), (20, "score", 20), (50, None, 40), (None, None, 100)]
)
def test_a_run_that_drifted_ends_with_its_last_healthy_checkpoint(
    tmp_path: Path,
    make_trainer: MakeTrainer,
    tiny_module: Any,
    tiny_data: Any,
    healthy: int | None,
    monitor: str | None,
    step: int,
) -> None:
    checkpoint = RunCheckpoint(monitor=monitor, mode="max")
    drifts = Scripted([0.1, 0.2, 0.3, 0.4, 0.5], healthy, stops=True)
    trainer = fit(make_trainer, tiny_module, tiny_data, checkpoint, max_epochs=9, callbacks=[drifts])
    assert trainer.global_step == 100
    result = result_of(trainer)
    assert result.step == step
    assert (result.checkpoint is None) == (step == 100)
    if monitor is None:
        expected = {step, 80, 100} if healthy else {80, 100}
        assert kept(tmp_path / "run") == [f"step_{at:08d}.ckpt" for at in sorted(expected)]
        assert result.reason == (
            "the last checkpoint that was healthy" if healthy else "the last step, as no checkpoint was healthy"
        )
