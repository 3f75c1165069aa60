"""A run that was cut and resumed sees the very batches, and ends with the very weights, of one that was not."""

from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules import GlossDataModule, WordNetDataModule
from datamodules.position import Position
from modulant.lexicon import Lexicon
from modulators import LerpModulator, ModulatedT5, PretrainT5
from tests.wordnets import excerpt, write_zip

MODULATOR = partial(LerpModulator, n_geometric_dims=4)

BATCHES = 9  # of an epoch
DATA: dict[str, Any] = {"batch_size": 8, "matching": "all", "val_fraction": 0.775}

pytestmark = [
    pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode at the start of training"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


class Watch(pl.Callback):
    """Keeps what was trained on: (Lightning's global step, bytes of the batch)."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, bytes]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        self.seen.append((trainer.global_step, batch["input_ids"].numpy().tobytes()))


class Save(pl.Callback):
    """A checkpoint at every moment at which Lightning's own callback may write one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _save(self, trainer: pl.Trainer, moment: str) -> None:
        trainer.save_checkpoint(self.folder / f"{moment}_{trainer.global_step}.ckpt")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._save(trainer, "step")

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._save(trainer, "validated")

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._save(trainer, "epoch")

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._save(trainer, "end")


class Run:
    """Trains, and keeps what the tests compare."""

    def __init__(
        self,
        data: pl.LightningDataModule,
        module: pl.LightningModule,
        folder: Path,
        *callbacks: pl.Callback,
        resume: Path | None = None,
        **trainer: Any,
    ) -> None:
        watch = Watch()
        self.trainer = pl.Trainer(
            **{
                "max_epochs": 3,
                "accelerator": "cpu",
                "logger": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
                "num_sanity_val_steps": 0,
                "limit_val_batches": 1,
                "default_root_dir": folder,
                **trainer,
            },
            callbacks=[watch, *callbacks],
        )
        self.trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        self.seen = watch.seen
        self.weights = module.state_dict()


@pytest.fixture(scope="module")
def few(lexicon: Lexicon, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A WordNet of 160 synsets."""
    rows = np.random.default_rng(0).choice(len(lexicon), 160, replace=False)
    return str(write_zip(excerpt(lexicon, rows.tolist()), tmp_path_factory.mktemp("few") / "wordnet.zip"))


@pytest.fixture(scope="module")
def start(few: str, tiny_backbone: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    def run(*callbacks: pl.Callback, data: dict[str, Any] | None = None, **trainer: Any) -> Run:
        torch.manual_seed(1)
        arguments = {**DATA, "nltk_data": few, **(data or {})}
        module = ModulatedT5(MODULATOR, backbone=tiny_backbone, lr=0.05)
        return Run(WordNetDataModule(**arguments), module, tmp_path_factory.mktemp("run"), *callbacks, **trainer)

    return run


@pytest.fixture(scope="module")
def whole(start: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A run in one go, which leaves a checkpoint after every step, every validation and every epoch."""
    folder = tmp_path_factory.mktemp("checkpoints")
    run = start(Save(folder))
    assert [step for step, _ in run.seen] == list(range(3 * BATCHES))
    return run, folder


def assert_continues_as(resumed: Run, whole: Run, step: int) -> None:
    assert resumed.seen == whole.seen[step:]
    assert resumed.weights.keys() == whole.weights.keys()
    for key, value in whole.weights.items():
        assert torch.equal(resumed.weights[key], value), key
    assert resumed.trainer.current_epoch == 3


def test_epochs_differ(whole: tuple[Run, Path]) -> None:
    batches = [batch for _, batch in whole[0].seen]
    epochs = [batches[i : i + BATCHES] for i in range(0, 3 * BATCHES, BATCHES)]
    assert all(set(one) != set(other) for one, other in ((epochs[0], epochs[1]), (epochs[1], epochs[2])))


@pytest.mark.parametrize(
    ("checkpoint", "step"),
    [
        ("step_1", 1),
        ("step_5", 5),  # in the middle of the first epoch
        ("step_9", 9),  # on an epoch's last step, before its end
        ("validated_9", 9),
        ("epoch_9", 9),
        ("step_14", 14),  # in the middle of the second
        ("epoch_18", 18),
    ],
)
def test_resumed(start: Any, whole: tuple[Run, Path], checkpoint: str, step: int) -> None:
    run, folder = whole
    assert_continues_as(start(resume=folder / f"{checkpoint}.ckpt"), run, step)


def test_resumed_twice(start: Any, whole: tuple[Run, Path], tmp_path: Path) -> None:
    run, folder = whole
    saver = Save(tmp_path)
    start(saver, resume=folder / "step_5.ckpt", max_epochs=3)
    assert_continues_as(start(resume=tmp_path / "step_16.ckpt"), run, 16)


def test_resumed_with_workers(start: Any, whole: tuple[Run, Path]) -> None:
    """Workers fetch batches before Lightning has restored its counters."""
    run, folder = whole
    assert_continues_as(start(resume=folder / "step_14.ckpt", data={"num_workers": 1}), run, 14)


def test_an_error_in_mid_epoch(start: Any, whole: tuple[Run, Path], tmp_path: Path) -> None:
    class Trip(pl.Callback):
        def on_before_optimizer_step(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 13:
                raise RuntimeError("tripped")

    saver = ModelCheckpoint(tmp_path, filename="{step}", save_on_exception=True, save_top_k=-1)
    with pytest.raises(RuntimeError, match="tripped"):
        start(Trip(), saver)
    (checkpoint,) = tmp_path.glob("*step=13*")
    assert_continues_as(start(resume=checkpoint), whole[0], 13)


def test_stopped_by_max_steps(start: Any, whole: tuple[Run, Path], tmp_path: Path) -> None:
    """Lightning counts the epoch as done then; the data still resumes in its middle."""
    saver = ModelCheckpoint(tmp_path, filename="end", every_n_train_steps=13)
    start(saver, max_steps=13, max_epochs=-1)
    resumed = start(resume=tmp_path / "end.ckpt", max_steps=20, max_epochs=-1)
    assert [batch for _, batch in resumed.seen] == [batch for _, batch in whole[0].seen[13:20]]


def test_the_position_is_in_the_checkpoint(whole: tuple[Run, Path]) -> None:
    _, folder = whole
    for name, position in (
        ("step_5", (0, 5)),
        ("step_9", (1, 0)),
        ("epoch_9", (1, 0)),
        ("step_14", (1, 5)),
        ("epoch_27", (3, 0)),
    ):
        checkpoint = torch.load(folder / f"{name}.ckpt", weights_only=True)
        state = checkpoint["WordNetDataModule"]
        assert (state["epoch"], state["batches"]) == position


def test_part_of_an_epoch(start: Any, tmp_path: Path) -> None:
    saver = Save(tmp_path)
    short = start(saver, limit_train_batches=4)
    assert len(short.seen) == 12
    assert_continues_as(start(resume=tmp_path / "step_6.ckpt", limit_train_batches=4), short, 6)


def test_another_plan_in_mid_epoch(start: Any, whole: tuple[Run, Path]) -> None:
    _, folder = whole
    with pytest.raises(
        ValueError,
        match=r"stopped in mid-epoch with data.batch_size 8 \(now 4\); resume it with the same, counted over all proc",
    ):
        start(resume=folder / "step_5.ckpt", data={"batch_size": 4})
    # Between epochs nothing is lost by another batch size.
    resumed = start(resume=folder / "epoch_18.ckpt", data={"batch_size": 4})
    assert len(resumed.seen) in (2 * BATCHES - 1, 2 * BATCHES)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 7}, r"data.seed 42 \(now 7\)"),
        ({"val_fraction": 0.6}, r"data.val_fraction 0.775 \(now 0.6\)"),
        ({"val_fraction": 0.4, "test_fraction": 0.375}, r"data.test_fraction 0.0 \(now 0.375\)"),
        ({"matching": "single_token"}, r"training entries \d+ \(now \d+\)"),
        ({"nltk_data": "other"}, r"holds out other entries.*it was trained on must not become held out"),
    ],
)
@pytest.mark.parametrize("fingerprint", [True, False])
def test_another_split_is_refused_at_an_epochs_end_too(
    start: Any,
    whole: tuple[Run, Path],
    lexicon: Lexicon,
    changed: dict[str, Any],
    said: str,
    fingerprint: bool,
    tmp_path: Path,
) -> None:
    """Entries that were trained on would count as held out. An earlier version's checkpoint says less of the split."""
    checkpoint = torch.load(whole[1] / "epoch_18.ckpt", weights_only=True)
    if not fingerprint:
        del checkpoint["WordNetDataModule"]["split"]
    torch.save(checkpoint, tmp_path / "some.ckpt")
    if changed.get("nltk_data"):
        rows = np.random.default_rng(1).choice(len(lexicon), 160, replace=False)
        changed = {"nltk_data": str(write_zip(excerpt(lexicon, rows.tolist()), tmp_path / "wordnet.zip"))}
    if not fingerprint:
        said = "the run holds out other entries: it had "
        if "val_fraction" in changed:
            said += "data.test_fraction" if "test_fraction" in changed else "training entries"
    with pytest.raises(ValueError, match=said):
        start(resume=tmp_path / "some.ckpt", data=changed)


def test_a_checkpoint_that_does_not_say_its_split(start: Any, tmp_path: Path) -> None:
    """One of an earlier version, which split by entries."""
    start(Save(tmp_path), data={"split": "entry"}, max_epochs=1)
    checkpoint = torch.load(tmp_path / "epoch_9.ckpt", weights_only=True)
    del checkpoint["WordNetDataModule"]["plan"]["data.split"], checkpoint["WordNetDataModule"]["split"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    assert len(start(resume=tmp_path / "old.ckpt", data={"split": "entry"}, max_epochs=2).seen) == BATCHES
    with pytest.raises(ValueError, match=r"it had data.split entry \(now synset\)"):
        start(resume=tmp_path / "old.ckpt")


def test_another_number_of_processes_in_mid_epoch() -> None:
    """What counts is the global batch size. An earlier version gave each process separate batches."""
    position = Position()
    state = {"epoch": 1, "batches": 5, "processed": 14}
    position.load_state_dict({**state, "plan": {"data.batch_size": 8, "data.seed": 42, "processes": 1}})
    position.check({"data.batch_size": 8, "data.seed": 42})
    with pytest.raises(
        ValueError, match=r"mid-epoch with data.batch_size 8 \(now 16\), data.seed 42 \(now 1\); resume"
    ):
        position.check({"data.batch_size": 16, "data.seed": 1})
    position.load_state_dict({**state, "plan": {"data.batch_size": 8, "data.seed": 42, "processes": 2}})
    for batch_size in (8, 16):
        with pytest.raises(
            ValueError, match=r"an earlier version, which split batches of data.batch_size over 2 processes"
        ):
            position.check({"data.batch_size": batch_size, "data.seed": 42})
    position.load_state_dict({**state, "batches": 0, "plan": {"data.batch_size": 8, "processes": 2}})
    position.check({"data.batch_size": 16})


def test_a_new_run_begins_at_the_beginning(few: str, tiny_backbone: str, whole: tuple[Run, Path]) -> None:
    run, folder = whole
    data = WordNetDataModule(**DATA, nltk_data=few)
    assert data.state_dict() == {}
    torch.manual_seed(1)
    Run(data, ModulatedT5(MODULATOR, backbone=tiny_backbone, lr=0.05), folder, resume=folder / "step_14.ckpt")
    torch.manual_seed(1)
    again = Run(data, ModulatedT5(MODULATOR, backbone=tiny_backbone, lr=0.05), folder)
    assert again.seen == run.seen


def test_lightning_must_not_shard_again(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pl.Trainer, "world_size", 2)
    with pytest.raises(ValueError, match=r"trainer\.use_distributed_sampler must be false"):
        start(num_sanity_val_steps=0)


def test_pretraining_resumes_too(few: str, tmp_path: Path) -> None:
    def run(*callbacks: pl.Callback, resume: Path | None = None) -> Run:
        data = GlossDataModule(tokenizer="mini", batch_size=32, val_fraction=0.5, nltk_data=few)
        sizes = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_heads": 2, "num_layers": 1, "num_decoder_layers": 1}
        return Run(data, PretrainT5(**sizes), tmp_path / "run", *callbacks, resume=resume, max_epochs=2)

    saver = Save(tmp_path)
    whole = run(saver)
    per_epoch = len(whole.seen) // 2
    assert {batch for _, batch in whole.seen[:per_epoch]} != {batch for _, batch in whole.seen[per_epoch:]}
    assert per_epoch == 10
    for step in (per_epoch, per_epoch + 2):
        resumed = run(resume=tmp_path / f"step_{step}.ckpt")
        assert resumed.seen == whole.seen[step:]
        for key, value in whole.weights.items():
            assert torch.equal(resumed.weights[key], value), key


@pytest.mark.parametrize("checkpoint", ["epoch_27", "end_27"])
def test_more_epochs(start: Any, whole: tuple[Run, Path], checkpoint: str) -> None:
    _, folder = whole
    longer = start(max_epochs=4)
    resumed = start(resume=folder / f"{checkpoint}.ckpt", max_epochs=4)
    assert [batch for _, batch in resumed.seen] == [batch for _, batch in longer.seen[27:]]
