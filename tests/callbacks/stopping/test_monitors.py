"""A monitor that names nothing: one line as soon as that is known, and the run is saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from callbacks import CheckpointError, MetricsCSV, Monitors, RunCheckpoint
from callbacks.logs import log_now
from tests.runs import main, small_wordnet, tiny_backbone

MakeTrainer = Callable[..., pl.Trainer]


class LogsAtOnce(pl.Callback):
    """As measures do when a fit begins, and not again."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        log_now(trainer, {"alpha/spread": 0.5, "similarity/men": 0.5})


@pytest.mark.parametrize(
    ("callback", "settings", "step", "line"),
    [
        (EarlyStopping("val/los"), {"val_check_interval": 10}, 10, "EarlyStopping: nothing is logged as 'val/los'; n"),
        (EarlyStopping("val/los"), {}, 20, "EarlyStopping: nothing is logged as 'val/los'; nearest: val/loss"),
        (EarlyStopping("train/los"), {}, 1, "EarlyStopping: nothing is logged as 'train/los'; nearest: train/loss"),
        (EarlyStopping("val/loss"), {"limit_val_batches": 0}, 20, "EarlyStopping: nothing is logged as 'val/loss'"),
        (EarlyStopping("alpha/sprea"), {}, 0, "EarlyStopping: nothing is logged as 'alpha/sprea'; nearest: alpha/spre"),
        (EarlyStopping("similarity/men"), {}, 20, "EarlyStopping: 'similarity/men' is logged, but not by validations"),
        (
            ModelCheckpoint(monitor="val/los"),
            {},
            20,
            "ModelCheckpoint: nothing is logged as 'val/los'; nearest",
        ),
    ],
)
def test_what_is_never_logged_is_named(
    make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any, tmp_path: Path, callback: Any, settings: Any,
    step: int, line: str,
) -> None:  # fmt: skip
    settings = {"callbacks": [Monitors(), callback, LogsAtOnce(), RunCheckpoint()], **settings}
    trainer = make_trainer(logger=MetricsCSV(str(tmp_path / "run")), enable_checkpointing=True, **settings)
    with pytest.raises(CheckpointError) as caught:
        trainer.fit(tiny_module, datamodule=tiny_data)
    assert str(caught.value).startswith(f"trainer.callbacks: monitor of {line}")
    assert trainer.global_step == step
    assert (tmp_path / "run" / "checkpoints" / f"step_{step:08d}.ckpt").is_file() == (step > 0)


@pytest.mark.parametrize(
    "callback",
    [
        EarlyStopping("val/loss"), EarlyStopping("train/loss"), EarlyStopping("val/los", strict=False),
        ModelCheckpoint(), ModelCheckpoint(monitor="step"),
    ],
)  # fmt: skip
def test_what_is_logged_or_need_not_be(
    make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any, tmp_path: Path, callback: Any
) -> None:
    parts = [Monitors(), callback, RunCheckpoint()]
    trainer = make_trainer(callbacks=parts, enable_checkpointing=True, check_val_every_n_epoch=2)
    trainer.fit(tiny_module, datamodule=tiny_data)
    assert trainer.global_step == 40


def test_as_a_user_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["fit", "--config=field.yaml", f"--model.backbone={tiny_backbone(tmp_path / 't5')}", "--output=run"]
    argv += [f"--data.nltk_data={small_wordnet(tmp_path / 'nltk_data')}", "--relational.baselines=false"]
    argv += ["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val/los"]
    argv += ["--trainer.check_val_every_n_epoch=1"]  # by which it looks at each epoch's end
    capfd.readouterr()
    with pytest.raises(SystemExit) as caught:
        main()(argv)
    assert caught.value.code == 1
    assert capfd.readouterr().err.splitlines() == [
        f"saved {tmp_path}/run/checkpoints/step_00000001.ckpt on CheckpointError",
        "error: trainer.callbacks: monitor of EarlyStopping: nothing is logged as 'val/los'; "
        "nearest: val/loss, train/loss",
    ]
