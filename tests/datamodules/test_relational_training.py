"""Training on relations end to end: the loss is what its parts say, batches are of distinct synsets, runs resume."""

from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from datamodules import WordNetDataModule
from modulant.geometry import masked_mean
from modulant.lexicon import Lexicon
from modulators import AdaptedT5, LerpModulator, ModulatedT5, RelationalObjective, TunedT5
from modulators.training.objectives.base import TrainingBatch, total
from tests.wordnets import with_taxonomy, write_zip

pytestmark = [
    pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode at the start of training"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]
OBJECTIVE = partial(RelationalObjective, task=0.3, keep=0.5, verbs=0.0)


@pytest.fixture(scope="module")
def few(lexicon: Lexicon, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A WordNet of some nouns and all that is above them, and some adjectives."""
    nouns = np.random.default_rng(0).choice(np.flatnonzero(lexicon.pos == "n"), 40, replace=False)
    rows = np.append(nouns, np.flatnonzero(lexicon.pos == "a")[:30])
    return str(write_zip(with_taxonomy(lexicon, rows.tolist()), tmp_path_factory.mktemp("few") / "wordnet.zip"))


def data_of(few: str, **arguments: Any) -> WordNetDataModule:
    given = {"batch_size": 24, "matching": "all", "val_fraction": 0.3, "near_pairs": 0.5, "nltk_data": few}
    return WordNetDataModule(**(given | arguments))


def lerp(backbone: str, **arguments: Any) -> ModulatedT5:
    torch.manual_seed(1)
    modulator = partial(LerpModulator, n_geometric_dims=4, initial_alpha=0.2)
    return ModulatedT5(modulator, backbone=backbone, lr=0.05, objective=OBJECTIVE(), **arguments)


class Watch(pl.Callback):
    def __init__(self, save: Path | None = None) -> None:
        self.batches: list[dict[str, Any]] = []
        self.losses: list[dict[str, float]] = []
        self.save = save

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.batches.append(batch)
        named = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("train/")}
        self.losses.append(named)
        if self.save is not None:
            trainer.save_checkpoint(self.save / f"{trainer.global_step}.ckpt")


def fit(module: Any, data: Any, folder: Path, watch: Watch, resume: Path | None = None, **settings: Any) -> None:
    trainer = pl.Trainer(
        **{
            "max_epochs": 2,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
            "default_root_dir": folder,
            "callbacks": [watch],
            **settings,
        }
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)


def test_it_resumes_to_the_bit(few: str, tiny_backbone: str, tmp_path: Path) -> None:
    whole, watch = lerp(tiny_backbone), Watch(tmp_path)
    fit(whole, data_of(few), tmp_path, watch)
    steps = len(watch.batches)
    assert steps >= 6
    for at in (2, steps // 2):
        resumed, again = lerp(tiny_backbone), Watch()
        fit(resumed, data_of(few), tmp_path, again, tmp_path / f"{at}.ckpt")
        assert again.losses == watch.losses[at:]
        assert all(torch.equal(value, whole.state_dict()[key]) for key, value in resumed.state_dict().items())


def test_batches_are_of_distinct_training_synsets(few: str, tiny_backbone: str, tmp_path: Path) -> None:
    data, watch = data_of(few), Watch()
    fit(lerp(tiny_backbone), data, tmp_path, watch)
    own = data.training_synsets
    epoch = np.concatenate([batch["synset_rows"] for batch in watch.batches[: len(watch.batches) // 2]])
    assert sorted(epoch.tolist()) == list(range(len(own)))
    held_out = set(data.entries.synset[data.corpus.held_out])
    assert not held_out & set(own.synsets)
    for batch in watch.batches:
        for row, ids, real in zip(batch["synset_rows"], batch["input_ids"], batch["attention_mask"], strict=True):
            assert ids[real.bool()].tolist() == own.sources[int(row)].tolist()


def test_the_loss_is_what_its_parts_say(few: str, tiny_backbone: str, tmp_path: Path) -> None:
    """Representations and the frozen encoder's by hand, the lemma's loss by transformers."""
    module, data, watch = lerp(tiny_backbone), data_of(few), Watch()
    fit(module, data, tmp_path, watch, max_steps=1)
    batch, objective = watch.batches[0], OBJECTIVE()
    own = data.training_synsets
    objective.prepare(data.corpus.lexicon, own.synsets)
    start = lerp(tiny_backbone)
    start.configure_model()
    assert start.handle is not None
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "labels")}
    with torch.no_grad():
        output = start.model(**inputs)
        z = masked_mean(output.encoder_last_hidden_state, batch["attention_mask"])
        with start.handle.disabled():
            base = masked_mean(start.encode(batch["input_ids"], batch["attention_mask"]), batch["attention_mask"])
        terms = objective.terms(TrainingBatch(output.loss, z, base, own.synsets[batch["synset_rows"]]))
    logged = watch.losses[0]
    assert logged["train/loss"] == pytest.approx(float(total(terms)), abs=1e-5)
    assert logged["train/drift"] == pytest.approx(1 - float(F.cosine_similarity(z, base).mean()), abs=1e-5)
    assert logged["train/task"] == pytest.approx(float(output.loss), abs=1e-5)
    assert logged["train/pearson_all"] == pytest.approx(float(terms["pearson_all"].value), abs=1e-5)
    assert abs(logged["train/pearson_nouns"]) > 0.01


@pytest.mark.parametrize(
    ("model", "data", "trainer"),
    [
        ({"gradient_checkpointing": True}, {}, {}),
        ({"layers": [1], "cache": "memory"}, {"regroup": False}, {}),
    ],
)
def test_what_divides_a_pass_changes_nothing(
    model: Any, data: Any, trainer: Any, few: str, tiny_backbone: str, tmp_path: Path
) -> None:
    plain = {key: value for key, value in model.items() if key == "layers"}
    found = []
    for arguments in (plain, model):
        watch = Watch()
        fit(lerp(tiny_backbone, **arguments), data_of(few, **data), tmp_path, watch, **trainer)
        found.append([losses["train/loss"] for losses in watch.losses])
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_accumulated_steps_are_means_over_synsets(few: str, tiny_backbone: str, tmp_path: Path) -> None:
    """A step of three batches has the mean of their gradients, by their numbers of synsets, in the last one too."""

    class Gradients(Watch):
        def __init__(self) -> None:
            super().__init__()
            self.steps: list[int] = []
            self.pending: list[dict[str, Any]] = []

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            self.pending.append(batch)

        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            learned = [p for p in module.parameters() if p.requires_grad]
            found = torch.cat([p.grad.flatten() for p in learned])
            sizes = torch.tensor([float(len(batch["synset_rows"])) for batch in self.pending])
            with torch.enable_grad():
                losses = torch.stack([total(module.objective.terms(module._given(b))) for b in self.pending])
                grads = torch.autograd.grad((losses * sizes).sum() / sizes.sum(), learned)
            expected = torch.cat([g.flatten() for g in grads])
            assert float((found - expected).norm() / expected.norm()) < 1e-5
            self.steps.append(len(self.pending))
            self.pending = []

    watch = Gradients()
    fit(lerp(tiny_backbone), data_of(few), tmp_path, watch, max_epochs=1, accumulate_grad_batches=3)
    assert watch.steps[0] == 3
    assert watch.steps[-1] < 3


@pytest.mark.parametrize("kind", ["lora", "tuned"])
def test_controls_train_on_it_too(kind: str, few: str, tiny_backbone: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    common: dict[str, Any] = {"backbone": tiny_backbone, "lr": 0.01, "objective": OBJECTIVE(task=0.0)}
    module = AdaptedT5("lora", 500, **common) if kind == "lora" else TunedT5(**common)
    watch = Watch()
    fit(module, data_of(few), tmp_path, watch, max_epochs=6)
    pearson = [losses["train/pearson_all"] for losses in watch.losses]
    assert np.mean(pearson[-3:]) > np.mean(pearson[:3]) + 0.05


def test_what_does_not_go_together(few: str, tiny_backbone: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data.near_pairs is null, and model.objective \(RelationalObjective\)"):
        fit(lerp(tiny_backbone), data_of(few, near_pairs=None), tmp_path, Watch())


def test_fewer_synsets_than_a_batch(few: str, tiny_backbone: str, tmp_path: Path) -> None:
    data, watch = data_of(few, batch_size=5000), Watch()
    fit(lerp(tiny_backbone), data, tmp_path, watch)
    assert [len(batch["synset_rows"]) for batch in watch.batches] == [len(data.training_synsets)] * 2
