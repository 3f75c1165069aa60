"""TextDataModule: bits per byte, resuming with the very next batch, several processes, errors of one line."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules import TextDataModule
from datamodules.text.shards import PARTS
from modulant.storage import cache_folder
from tests.datamodules.test_resuming import Run, Save
from tests.datamodules.text.conftest import Make
from tests.runs import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")

FEW = {"max_documents": 40, "batch_tokens": 128}  # of which an epoch has few batches


class Bigram(pl.LightningModule):
    """Predicts a token by the one before it."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, vocab_size)

    def nats(self, batch: dict[str, Any]) -> Tensor:
        scores = self.table(batch["input_ids"]).flatten(0, 1)
        return nn.functional.cross_entropy(scores, batch["labels"].flatten(), reduction="sum")

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        weight = batch.get("weight", 1 / int((batch["labels"] != -100).sum()))
        return self.nats(batch) * weight * batch.get("factor", 1.0)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.nats(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.01)


def run(make: Make, folder: Path, *callbacks: pl.Callback, **settings: Any) -> Run:
    data = make(**{**FEW, **settings.pop("data", {})})
    torch.manual_seed(1)
    return Run(data, Bigram(data.tokenizer.vocab_size), folder, *callbacks, **{"max_epochs": 2, **settings})


def test_a_uniform_model_of_bytes_has_eight_bits_a_byte(make: Make) -> None:
    """Marks between documents are predicted too: their nats are left out here, as their bytes are 0."""
    data = make(tokenizer="bytes")
    lengths = torch.from_numpy(data.tokenizer.byte_lengths)
    nats, size = 0.0, 0
    for batch in data.val_dataloader():
        labels = batch["labels"][batch["labels"] != -100]
        nats += float((lengths[labels] > 0).sum() * np.log(256))
        size += batch["bytes"]
    assert size == data.shards.tally.bytes[1]
    assert nats / (np.log(2) * size) == pytest.approx(8)


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_the_training_parts_own_unigram_has_its_entropy(make: Make, tokenizer: str) -> None:
    data = make(tokenizer=tokenizer)
    counts = data.tokenizer.counts
    assert counts is not None
    counts[data.tokenizer.end] -= 1  # the first token is never predicted
    p = counts / counts.sum()
    nats = sum(float(-np.log(p[b["labels"][b["labels"] != -100]]).sum()) for b in data.train_dataloader())
    entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
    assert nats / data.windows("train").predicted == pytest.approx(entropy)


def test_parts_are_disjoint_and_whole(make: Make, texts: list[str]) -> None:
    data = make()
    found = []
    for part in PARTS:
        ids = data.shards.tokens(part)
        found.append(set(bytes(data.tokenizer.decode_bytes(ids)).split(b"\n")))
        loader = {"train": data.train_dataloader, "val": data.val_dataloader, "test": data.test_dataloader}[part]()
        labels = np.concatenate([b["labels"][b["labels"] != -100].numpy() for b in loader])
        assert sorted(labels.tolist()) == sorted(ids[1:].tolist())
        assert part == "train" or labels.tolist() == ids[1:].tolist()
    assert sum(data.shards.tally.documents) == len(texts)
    about = data.describe()
    assert about["train_bytes"] + about["val_bytes"] + about["test_bytes"] == sum(len(t.encode()) for t in texts)
    assert len(data.train_dataloader()) == data._batches_per_epoch() == -(-about["windows_per_epoch"] // 4)


def test_without_a_test_part(make: Make) -> None:
    data = make(test_fraction=0.0)
    assert data.shards.tally.documents[2] == len(data.shards.tokens("test")) == 0
    both = [
        [batch["labels"].tolist() for batch in loader] for loader in (data.test_dataloader(), data.val_dataloader())
    ]
    assert both[0] == both[1]


def test_every_arm_gets_the_same_order(make: Make) -> None:
    def order(**changed: Any) -> list[bytes]:
        return [batch["input_ids"].numpy().tobytes() for batch in make(**changed).train_dataloader()]

    assert order() == order()
    assert order() != order(order_seed=1)
    assert sorted(b"".join(order())) == sorted(b"".join(order(order_seed=1))), "on the same split"


@pytest.fixture(scope="module")
def whole(make: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """Two epochs in one go, with a checkpoint after every step."""
    folder = tmp_path_factory.mktemp("whole")
    return run(make, folder, Save(folder)), folder


@pytest.mark.parametrize("at", [1, 0.5, 1.0, 1.5])
def test_resumed_is_unbroken_to_the_bit(make: Make, whole: tuple[Run, Path], tmp_path: Path, at: float) -> None:
    first, folder = whole
    epoch = len(first.seen) // 2
    assert epoch > 4
    step = 1 if at == 1 and isinstance(at, int) else int(at * epoch)
    assert {batch for _, batch in first.seen[:epoch]} != {batch for _, batch in first.seen[epoch:]}
    resumed = run(make, tmp_path, resume=folder / f"step_{step}.ckpt")
    assert resumed.seen == first.seen[step:]
    assert all(torch.equal(resumed.weights[key], value) for key, value in first.weights.items())


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"seed": 1}, r"data.seed 42 \(now 1\)"),
        ({"max_documents": 41}, r"data.max_documents 40 \(now 41\)"),
        ({"vocab_size": 301}, r"data.vocab_size 300 \(now 301\), tokenizer \w+ \(now \w+\)"),
        ({"tokenizer": "bytes"}, r"data.tokenizer bpe \(now bytes\)"),
    ],
)
def test_other_tokens_are_refused(make: Make, whole: tuple[Run, Path], changed: dict[str, Any], line: str) -> None:
    first, folder = whole
    state = torch.load(folder / f"step_{len(first.seen) // 2}.ckpt", weights_only=True)["TextDataModule"]
    assert state["batches"] == 0, "at an epoch's end too"
    with pytest.raises(ValueError, match=rf"^the run was trained on other tokens: it had .*{line}.*must not become"):
        make(**{**FEW, **changed}).load_state_dict(state)


def test_another_plan_in_mid_epoch_is_refused(make: Make, whole: tuple[Run, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"stopped in mid-epoch with data.batch_size 8 \(now 16\), data.context 16"):
        run(make, tmp_path, resume=whole[1] / "step_2.ckpt", data={"context": 8})


def test_processes_learn_what_one_does(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of three processes' gradients at a third of the batch is one process's, for each batch of an epoch."""
    one, shared = make(batch_tokens=192), make(batch_tokens=64)
    model = Bigram(one.tokenizer.vocab_size)
    monkeypatch.setattr(TextDataModule, "_rank_and_world_size", (0, 1))
    expected = list(one.train_dataloader())
    shares = []
    for rank in range(3):
        monkeypatch.setattr(TextDataModule, "_rank_and_world_size", (rank, 3))
        shares.append(list(shared.train_dataloader()))
    assert {len(some) for some in shares} == {len(expected)}
    weights = list(model.parameters())
    for i, batch in enumerate(expected):
        (alone,) = torch.autograd.grad(model.training_step(batch, i), weights)
        (together,) = torch.autograd.grad(sum(model.training_step(some[i], i) for some in shares) / 3, weights)
        torch.testing.assert_close(together, alone)
    evaluated = []
    for rank in range(3):
        monkeypatch.setattr(TextDataModule, "_rank_and_world_size", (rank, 3))
        evaluated.append(list(shared.val_dataloader()))
    assert len({len(some) for some in evaluated}) == 1, "collectives are called once a batch"
    assert sum(batch["bytes"] for some in evaluated for batch in some) == shared.shards.tally.bytes[1]


def test_accumulated_batches_are_one(make: Make, tmp_path: Path) -> None:
    apart = run(make, tmp_path, data={"batch_tokens": 64}, accumulate_grad_batches=2)
    together = run(make, tmp_path, data={"batch_tokens": 128})
    torch.testing.assert_close(apart.weights["table.weight"], together.weights["table.weight"])


def test_the_default_corpus() -> None:
    """A part of it: definitions that stand for several synsets are there once."""
    data = TextDataModule(max_documents=3000, context=64, batch_tokens=512, vocab_size=512)
    data.setup()
    about = data.describe()
    assert about["vocabulary"] == 512
    assert about["repeated_documents"] == 0
    assert 1.8 < about["bytes_per_token"] < 3
    assert data.tokenizer_folder.is_relative_to(cache_folder())
    assert data.tokenizer.decode(data.shards.tokens("train")[:300]).startswith("(usually followed by `to') having the")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"context": 0}, "context is 0; it must be an integer of at least 1"),
        ({"context": 24, "batch_tokens": 64}, "data.batch_tokens is 64; it must be a multiple of data.context, 24"),
        ({"vocab_size": 256}, "data.vocab_size is 256; it must be at least 257, of bytes and one mark"),
        ({"val_fraction": 0.6, "test_fraction": 0.4}, "data.val_fraction is 0.6 and data.test_fraction 0.4; their sum"),
        ({"corpus": "wordnt"}, "data.corpus: 'wordnt' is neither .*did you mean wordnet"),
        (
            {"context": 4096, "batch_tokens": 4096},
            r"data.context is 4096, and the part 'val' of data.corpus .* has \d,\d+ tokens to predict; choose",
        ),
        ({"tokenizer": "mini"}, "data.tokenizer: 'mini': it is no byte-level tokenizer"),
    ],
)
def test_bad_input_is_one_line(make: Make, arguments: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line) as error:
        make(**arguments)
    assert "\n" not in str(error.value)


def test_its_artifact_is_a_tokenizer_for_other_text(make: Make, tmp_path: Path) -> None:
    first = make()
    (tmp_path / "other.txt").write_text("\n\n".join(f"stone {i} under" for i in range(200)))
    other = make(corpus=str(tmp_path / "other.txt"), tokenizer=str(first.tokenizer_folder))
    assert other.tokenizer.sha256 == first.tokenizer.sha256
    assert other.tokenizer.counts is not None
    assert other.tokenizer.counts.sum() == len(other.shards.tokens("train")), "counted anew"


KILLED = """
import os, signal, sys
import torch
import lightning.pytorch as pl
from pathlib import Path
from datamodules import TextDataModule
from tests.datamodules.test_resuming import Watch
from tests.datamodules.text.test_module import Bigram

class Kill(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        trainer.save_checkpoint(out / "last.ckpt")
        if trainer.global_step == at:
            os.kill(os.getpid(), signal.SIGKILL)

out, at, corpus, devices = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
data = TextDataModule(corpus, vocab_size=300, context=16, batch_tokens=128 // devices, val_fraction=0.15,
                      max_documents=40)
torch.manual_seed(1)
watch = Watch()
trainer = pl.Trainer(max_epochs=2, accelerator="cpu", devices=devices, logger=False, enable_progress_bar=False,
                     enable_model_summary=False, enable_checkpointing=False, use_distributed_sampler=False,
                     strategy="ddp" if devices > 1 else "auto", default_root_dir=out, callbacks=[watch, Kill()])
data.prepare_data()
data.setup()
model = Bigram(data.tokenizer.vocab_size)
found = out / "last.ckpt"
trainer.fit(model, datamodule=data, ckpt_path=found if found.exists() else None, weights_only=True)
torch.save({"weights": model.state_dict(), "seen": watch.seen}, out / f"end_{trainer.global_rank}.pt")
"""


@pytest.mark.slow
def test_killed_and_with_two_processes(file: Path, tmp_path: Path) -> None:
    """Kill −9 and resume, bit for bit; and two processes, of half the batch each, to rounding."""

    def train(name: str, at: int, devices: int = 1) -> int:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / "script.py").write_text(KILLED)
        words = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / name), str(at), str(file), str(devices)]
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode in (0, -9), done.stderr
        return done.returncode

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert train("whole", -1) == 0
    assert train("cut", 7) == -9
    assert train("cut", -1) == 0
    assert train("two", -1, devices=2) == 0
    whole, cut = (torch.load(tmp_path / name / "end_0.pt") for name in ("whole", "cut"))
    assert cut["seen"] == whole["seen"][7:]
    assert torch.equal(cut["weights"]["table.weight"], whole["weights"]["table.weight"])
    two = [torch.load(tmp_path / "two" / f"end_{rank}.pt") for rank in range(2)]
    assert torch.equal(two[0]["weights"]["table.weight"], two[1]["weights"]["table.weight"])
    torch.testing.assert_close(two[0]["weights"]["table.weight"], whole["weights"]["table.weight"], atol=1e-4, rtol=0)
    assert len(two[0]["seen"]) == len(whole["seen"])
