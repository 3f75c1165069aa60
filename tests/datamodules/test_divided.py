"""What divides a batch changes nothing: each step has the gradient of one batch of all its entries.

The reference is one padded batch of a step's entries, its loss by transformers and its gradient by autograd, at the
weights that the step begins with. Targets have unequal lengths, and an epoch's last step has fewer batches than others.
Several processes are in `tests/faults/test_world_sizes.py`, a sharded backbone in
`tests/modulant/backbones/test_sharding.py`. `docs/architecture.md` has all pairs as a table.
"""

import re
from functools import partial
from itertools import pairwise
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from datamodules import GlossDataModule, WordNetDataModule
from modulant.corpus.ragged import training_batch
from modulators import FieldModulator, ModulatedT5, PretrainT5
from tests.jobs import traced
from tests.runs import ROOT, process

pytestmark = pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode at the start of training")

SIZES = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_heads": 2, "num_layers": 1, "num_decoder_layers": 1}


def joined(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """Several batches as one."""
    sources = [ids[real.bool()] for b in batches for ids, real in zip(b["input_ids"], b["attention_mask"], strict=True)]
    targets = [labels[labels != -100] for b in batches for labels in b["labels"]]
    return training_batch([row.numpy() for row in sources], [row.numpy() for row in targets], 0)


class Steps(pl.Callback):
    """The relative error of each step's gradient, and the entries of each batch."""

    def __init__(self) -> None:
        self.batches: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        self.errors: list[float] = []
        self.seen: list[bytes] = []

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: dict[str, Any], batch_idx: int) -> None:
        self.batches.append(batch)
        self.seen.append(batch["input_ids"].numpy().tobytes())

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: Any, optimizer: Any) -> None:
        learned = [p for p in module.parameters() if p.requires_grad]
        found = torch.cat([p.grad.flatten() for p in learned if p.grad is not None])
        whole = joined(self.batches)
        inputs = {key: whole[key] for key in ("input_ids", "attention_mask", "labels")}
        with torch.enable_grad():
            grads = torch.autograd.grad(module.model(**inputs).loss, learned, allow_unused=True)
        expected = torch.cat([g.flatten() for p, g in zip(learned, grads, strict=True) if p.grad is not None])
        self.errors.append(float((found - expected).norm() / expected.norm()))
        self.sizes.append(len(self.batches))
        self.batches = []


def train(module: pl.LightningModule, data: pl.LightningDataModule, folder: Any, **settings: Any) -> Steps:
    steps = Steps()
    trainer = pl.Trainer(
        max_epochs=settings.pop("max_epochs", 1),
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        default_root_dir=folder,
        callbacks=[steps, *settings.pop("callbacks", ())],
        **settings,
    )
    trainer.fit(module, datamodule=data)
    return steps


DIVIDED: dict[str, tuple[dict[str, Any], dict[str, Any], list[int]]] = {  # of the model, of the trainer; steps' batches
    "one batch": ({}, {}, [1] * 7),
    "accumulation": ({}, {"accumulate_grad_batches": 3}, [3, 3, 1]),
    "more than an epoch": ({}, {"accumulate_grad_batches": 9}, [7]),
    "part of an epoch": ({}, {"accumulate_grad_batches": 2, "limit_train_batches": 5}, [2, 2, 1]),
    "share of an epoch": ({}, {"accumulate_grad_batches": 3, "limit_train_batches": 0.6}, [3, 1]),
    "a schedule": (
        {},
        {"callbacks": [GradientAccumulationScheduler({1: 4})], "max_epochs": 2},
        [*[1] * 7, 4, 3],
    ),
    "checkpointing": ({"gradient_checkpointing": True}, {"accumulate_grad_batches": 2}, [2, 2, 2, 1]),
    "a cache": ({"layers": [1], "cache": "memory"}, {"accumulate_grad_batches": 3}, [3, 3, 1]),
    "both": (
        {"layers": [1], "cache": "memory", "gradient_checkpointing": True},
        {"accumulate_grad_batches": 2, "overfit_batches": 3, "max_epochs": 2},
        [2, 1, 2, 1],
    ),
    "part of an epoch of both": (  # other batches in the second epoch, of which the cache lacks some
        {"layers": [1], "cache": "memory", "gradient_checkpointing": True},
        {"accumulate_grad_batches": 2, "limit_train_batches": 5, "max_epochs": 2},
        [2, 2, 1, 2, 2, 1],
    ),
    "overfit_batches in the place of a part": (
        {},
        {"accumulate_grad_batches": 2, "overfit_batches": 3, "limit_train_batches": 5, "max_epochs": 2},
        [2, 1, 2, 1],
    ),
}


@pytest.mark.parametrize("what", DIVIDED)
def test_each_step_is_one_batch_of_its_entries(
    what: str, small_wordnet: str, tiny_backbone: str, tmp_path: Any
) -> None:
    arguments, settings, sizes = DIVIDED[what]
    check(small_wordnet, tiny_backbone, tmp_path, arguments, settings, sizes)


def test_the_table_of_pairs_names_tests() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tests = re.findall(r"^\| ([A-Z]) `(\w+)` \| ([\w./]+) \|", page, flags=re.M)
    assert all(re.search(rf"^def {name}\(", (ROOT / file).read_text(), flags=re.M) for _, name, file in tests)
    table = page[page.index("|                 | accumulation") :].partition("\n\n")[0]
    assert {cell.strip() for row in table.splitlines()[2:] for cell in row.split("|")[2:-1]} - {"", "–"} == {
        letter for letter, _, _ in tests
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "part", "sizes"),
    [
        ({}, {}, [3, 3, 1]),
        ({"gradient_checkpointing": True}, {"limit_train_batches": 5}, [3, 2]),
        ({"layers": [1], "cache": "memory"}, {"overfit_batches": 4, "max_epochs": 2}, [3, 1, 3, 1]),
    ],
)
def test_a_compiled_step_too(
    more: dict[str, Any], part: dict[str, Any], sizes: list[int], small_wordnet: str, tiny_backbone: str, tmp_path: Any
) -> None:
    with traced():
        settings = {"accumulate_grad_batches": 3, **part}
        check(small_wordnet, tiny_backbone, tmp_path, {"compile": True, **more}, settings, sizes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--model.compile=true"], "model.compile must be false where the backbone is sharded over processes"),
        (["--model.cache=memory", "--model.layers=[1]"], "model.cache: of a sharded encoder no layers can be left out"),
    ],
)
def test_what_a_sharded_backbone_refuses(
    more: list[str], line: str, small_wordnet: str, tiny_backbone: str, tmp_path: Any
) -> None:
    argv = [f"--model.backbone={tiny_backbone}", f"--data.nltk_data={small_wordnet}", "--data.batch_size=8", *more]
    two = ["--config=fsdp.yaml", "--trainer.accelerator=cpu", "--trainer.devices=2", "--output=run"]
    said = process("fit", "--config=field.yaml", *two, *argv, cwd=tmp_path)
    assert said.returncode == 1
    assert said.stderr.startswith(f"error: {line}")
    assert said.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def check(
    small_wordnet: str,
    tiny_backbone: str,
    tmp_path: Any,
    arguments: dict[str, Any],
    settings: dict[str, Any],
    sizes: list[int],
) -> None:
    """An epoch of seven batches, or more."""
    torch.manual_seed(0)
    data = WordNetDataModule(
        tiny_backbone, 32, matching="all", nltk_data=small_wordnet, val_fraction=0.92, regroup="cache" not in arguments
    )
    data.setup()
    assert len(np.unique(data.corpus.targets.lengths[data.corpus.trained])) > 3
    modulator = partial(FieldModulator, initial_alpha=0.2, expert_ks=(2, 4))  # whose gradients are no rounding noise
    steps = train(ModulatedT5(modulator, tiny_backbone, **arguments), data, tmp_path, **dict(settings))
    assert steps.sizes == sizes
    assert max(steps.errors) < 1e-4, steps.errors


def test_pretraining_too(small_wordnet: str, tmp_path: Any) -> None:
    """Of spans the mask decides the number of target tokens."""
    data = GlossDataModule("mini", batch_size=128, nltk_data=small_wordnet)
    torch.manual_seed(0)
    steps = train(PretrainT5(**SIZES), data, tmp_path, accumulate_grad_batches=2, limit_train_batches=5)
    assert steps.sizes == [2, 2, 1]
    assert max(steps.errors) < 1e-4, steps.errors


@pytest.mark.parametrize("regroup", [True, False])
def test_overfit_batches_are_the_same_each_epoch(
    regroup: bool, small_wordnet: str, tiny_backbone: str, tmp_path: Any
) -> None:
    data = WordNetDataModule(tiny_backbone, 8, nltk_data=small_wordnet, matching="all", regroup=regroup)
    steps = train(ModulatedT5(FieldModulator, tiny_backbone), data, tmp_path, overfit_batches=3, max_epochs=3)
    epochs = [steps.seen[i : i + 3] for i in (0, 3, 6)]
    assert epochs[0] == epochs[1] == epochs[2]


def test_overfitting_pretraining(small_wordnet: str, tmp_path: Any) -> None:
    data = GlossDataModule("mini", batch_size=64, nltk_data=small_wordnet)
    seen = train(PretrainT5(**SIZES), data, tmp_path, overfit_batches=2, max_epochs=2).seen
    assert seen[:2] == seen[2:]


def test_loaders_that_are_made_anew_give_the_same(small_wordnet: str, tiny_backbone: str, tmp_path: Any) -> None:
    def seen(**settings: Any) -> list[bytes]:
        data = WordNetDataModule(tiny_backbone, 8, nltk_data=small_wordnet, matching="all")
        module = ModulatedT5(FieldModulator, tiny_backbone)
        return train(module, data, tmp_path, limit_train_batches=3, max_epochs=3, **settings).seen

    once = seen()
    assert all(one != two for one, two in pairwise([once[i : i + 3] for i in (0, 3, 6)]))
    assert seen(reload_dataloaders_every_n_epochs=1) == once
