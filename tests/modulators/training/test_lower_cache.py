"""A run with cached lower layers is the run without them, to the bit."""

import errno
import re
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)

from datamodules import WordNetDataModule
from modulant.backbones.loading import freeze
from modulant.backbones.split_encoder import lower_encoder, upper_encoder
from modulant.storage import StorageError
from modulators import AdaptedT5, FieldModulator, LerpModulator, ModulatedT5
from modulators.arguments import check_cache
from modulators.training.lower_cache import CacheSettings, CacheSize, memory_mapped
from tests.runs import small_wordnet, tiny_backbone
from tests.worlds import SaveAt, together, trainer_in, world_size

EPOCHS, BATCHES = 2, 6  # of 48 training entries, 8 in a batch
LOOSE: dict[str, Any] = {"lr": 0.01, "schedule": "constant", "layers": [1]}
LERP = partial(ModulatedT5, partial(LerpModulator, n_geometric_dims=4, initial_alpha=0.2), **LOOSE)
FIELD = partial(ModulatedT5, partial(FieldModulator, expert_ks=(2,), initial_alpha=0.2), **LOOSE)
LORA = partial(AdaptedT5, "lora", 300, **LOOSE)

pytestmark = [
    pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode at the start of training"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


class Losses(pl.Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("cached")
    return {
        "wordnet": str(small_wordnet(folder / "wordnet", 60)),
        "backbone": tiny_backbone(folder / "backbone"),
        "folder": str(folder / "run"),
    }


def train(
    make: Any,
    wordnet: str,
    backbone: str,
    folder: str,
    callbacks: tuple[pl.Callback, ...] = (),
    resume: str | None = None,
    epochs: int = EPOCHS,
    accumulate: int = 1,
    data: Any = None,
    **settings: Any,
) -> dict[str, Any]:
    """Losses of all steps, and what was learned."""
    pl.seed_everything(1, verbose=False)
    module = make(backbone=backbone, **settings)
    watch = Losses()
    trainer = trainer_in(
        folder,
        max_epochs=epochs,
        callbacks=[watch, *callbacks],
        accumulate_grad_batches=accumulate,
        limit_val_batches=len(callbacks),  # validations between epochs
    )
    data = data or entries(wordnet, backbone)
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    return {"losses": watch.losses, "weights": {key: value.clone() for key, value in module.state_dict().items()}}


def entries(wordnet: str, backbone: str, regroup: bool = False) -> WordNetDataModule:
    return WordNetDataModule(
        backbone=backbone,
        nltk_data=wordnet,
        val_fraction=0.2,
        batch_size=8 // world_size(),
        regroup=regroup,
    )


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    weights = one["weights"].keys() == other["weights"].keys() and all(
        torch.equal(value, other["weights"][key]) for key, value in one["weights"].items()
    )
    return one["losses"] == other["losses"] and weights


@pytest.mark.parametrize(
    ("make", "cache", "settings"),
    [
        (LERP, "memory", {}),
        (LERP, "disk", {"backbone_dtype": "bfloat16"}),
        (FIELD, "memory", {"gradient_checkpointing": True, "accumulate": 4}),
        (LORA, "disk", {}),
    ],
)
def test_same_run(make: Any, cache: str, settings: dict[str, Any], where: dict[str, str]) -> None:
    plain, cached = train(make, **where, **settings), train(make, **where, **settings, cache=cache)
    assert len(plain["losses"]) == EPOCHS * BATCHES
    assert len(set(plain["losses"])) > EPOCHS  # something was learned, or at least looked at
    assert same(plain, cached)


class Calls(pl.Callback):
    """How often other hooks, on the blocks and on the encoder, were called in each epoch's training."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, int]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        encoder = pl_module.model.encoder
        for name, part in {"encoder": encoder, **{str(i): block for i, block in enumerate(encoder.block)}}.items():
            part.register_forward_hook(partial(self._count, trainer, name))
        attention = encoder.block[0].layer[0].SelfAttention
        attention.register_forward_hook(partial(self._count, trainer, "attention of 0"))

    def _count(self, trainer: pl.Trainer, name: str, *_: Any) -> None:
        if trainer.training:
            self.epochs[-1][name] += 1

    def on_train_epoch_start(self, *_: Any) -> None:
        self.epochs.append(dict.fromkeys(("encoder", "0", "1", "attention of 0"), 0))


def test_nothing_below_runs_again(where: dict[str, str]) -> None:
    calls = Calls()
    train(LERP, **where, callbacks=(calls,), cache="memory")
    filling, *later = calls.epochs
    # both parts in the epoch that fills it, only the upper one in those that read it
    assert filling == {"encoder": 2 * BATCHES, "0": BATCHES, "1": BATCHES, "attention of 0": BATCHES}
    assert later == [{"encoder": BATCHES, "0": 0, "1": BATCHES, "attention of 0": 0}] * (EPOCHS - 1)


def test_resumed(where: dict[str, str], tmp_path: Path) -> None:
    """In mid-epoch: the cache is filled again, and training resumes with the next batch."""
    file = str(tmp_path / "step.ckpt")
    whole = train(FIELD, **where, callbacks=(SaveAt(BATCHES + 2, file),), cache="memory")
    resumed = train(FIELD, **where, resume=file, cache="disk")
    assert resumed["losses"] == whole["losses"][BATCHES + 2 :]
    assert same({**whole, "losses": resumed["losses"]}, resumed)


def test_rounded(where: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Half the room, said to be another run; the epoch that fills it reads what the later ones read."""
    plain = train(LERP, **where)
    rounded = train(LERP, **where, cache="memory", cache_dtype="bfloat16")
    assert "rounded from float32, so not exact" in capsys.readouterr().out
    assert rounded["losses"][0] != plain["losses"][0]
    assert rounded["losses"][0] == pytest.approx(plain["losses"][0], rel=1e-2)


def test_what_is_said_and_left(where: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = entries(where["wordnet"], where["backbone"])
    train(LERP, **{**where, "folder": str(tmp_path)}, data=data, cache="disk")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("caching")]
    tokens = sum(examples * longest for examples, longest in data.batch_shapes())
    mib = tokens * 16 * 4 / 2**20
    assert f"layer 0 of 48 entries: {tokens:,} tokens × 16 × 4 bytes = {mib:.1f} MiB, on disk ({tmp_path})" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["t5", "gated", "mt5", "umt5"])
def test_halves_make_the_encoder(kind: str) -> None:
    sizes: dict[str, Any] = {"vocab_size": 50, "d_model": 24, "d_kv": 8, "d_ff": 32, "num_heads": 3, "num_layers": 4}
    torch.manual_seed(0)
    model: Any
    if kind == "umt5":
        model = freeze(UMT5ForConditionalGeneration(UMT5Config(**sizes)))
    elif kind == "mt5":
        model = freeze(MT5ForConditionalGeneration(MT5Config(**sizes)))
    else:
        form = "gated-gelu" if kind == "gated" else "relu"
        model = freeze(T5ForConditionalGeneration(T5Config(**sizes, feed_forward_proj=form)))
    ids = torch.randint(2, 50, (3, 70))
    mask = (torch.arange(70) < torch.tensor([[70], [64], [9]])).long()
    whole, names = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state, list(model.state_dict())
    for m in (1, 3):
        below = lower_encoder(model.encoder, m)(input_ids=ids, attention_mask=mask).last_hidden_state
        above = upper_encoder(model.encoder, m)(inputs_embeds=below, attention_mask=mask).last_hidden_state
        assert torch.equal(above, whole)
    assert len(model.encoder.block) == 4
    assert list(model.state_dict()) == names


def test_members_stay(where: dict[str, str]) -> None:
    """Every batch of each epoch, with its number; the order is another one."""
    data = entries(where["wordnet"], where["backbone"])
    data.setup("fit")
    orders = [[batch.tolist() for batch in data._epoch_batches(epoch)] for epoch in range(2)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    numbers = [batch["number"] for batch in data.train_dataloader()]
    assert sorted(numbers) == list(range(BATCHES))
    assert numbers != sorted(numbers)
    shapes = data.batch_shapes()
    assert all(tuple(batch["input_ids"].shape) == shapes[batch["number"]] for batch in data.train_dataloader())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"layers": "all"}, r"model\.layers \(all\) holds layer 0: nothing below it is frozen"),
        ({"layers": [0, 1]}, r"model\.layers \(\[0, 1\]\) holds layer 0"),
        ({"cache_folder": "/no/such"}, "model.cache_folder: no folder /no/such"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], said: str) -> None:
    right = {"layers": [1], "cache": "memory", "cache_folder": None}
    check_cache(**right)
    with pytest.raises(ValueError, match=said):
        check_cache(**{**right, **settings})


def test_refused_runs(where: dict[str, str]) -> None:
    regrouped = entries(where["wordnet"], where["backbone"], regroup=True)
    with pytest.raises(ValueError, match=r"must keep their members; set data\.regroup to false"):
        train(LERP, **where, data=regrouped, cache="memory")
    with pytest.raises(ValueError, match=r"model\.cache_limit_gib is 1e-06, but the cache takes"):
        train(LERP, **where, cache="memory", cache_limit_gib=1e-6)


def test_no_room(tmp_path: Path) -> None:
    """Asked for before a byte is written, so no disk is filled by it."""
    with pytest.raises(StorageError, match=re.escape(str(tmp_path)) + ".*no space is left") as error:
        memory_mapped(2**55, tmp_path)
    assert isinstance(error.value.__cause__, OSError)
    assert error.value.__cause__.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_size() -> None:
    size = CacheSize.of(CacheSettings("memory", "bfloat16", 1.0, None), 3, [(32, 10), (8, 5)], 128, torch.float32)
    assert (size.tokens, size.bytes, size.exact) == (360, 360 * 128 * 2, False)
    assert CacheSize.of(CacheSettings("memory", "float32", 1.0, None), 3, [], 128, torch.bfloat16).exact


@pytest.mark.slow
def test_two_processes(where: dict[str, str], tmp_path: Path) -> None:
    """Each rank caches its share of each batch; the weights equal those without a cache, bit for bit."""
    jobs = [partial(train, FIELD, **where), partial(train, FIELD, **where, cache="disk")]
    for plain, cached in together(2, jobs, tmp_path / "world"):
        assert same(plain, cached)
