"""Configurations that are wrong, or meant to harm, as real processes: one line, soon, and nothing is left behind."""

import json
import random
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Tally, many
from tests.runs import process

KIND = "bad and hostile configurations"
NOTE = "one line on stderr that says what is wrong, before anything is loaded, and nothing left; slowest {:.1f} s"
GENEROUS = 15.0  # seconds; a machine may be busy with other things

FIELD, LERP, PRETRAIN = ("--config=field.yaml",), ("--config=lerp.yaml",), ("--config=pretrain_mini.yaml",)


def _class(name: str, **arguments: object) -> str:
    return json.dumps({"class_path": name, "init_args": arguments})


# Command line (`mine.yaml` holds what stands after it), and a part of the line that must be said.
ALL: list[tuple[tuple[str, ...], str, str]] = [
    # keys
    ((*FIELD, "--model.lrr=1"), "", "did you mean model.lr?"),
    ((*FIELD, "--modell.lr=1"), "", "did you mean model?"),
    ((*FIELD, "--model.modulator.alfa_max=0.3"), "", "did you mean model.modulator.alpha_max?"),
    ((*FIELD, "--data.batchsize=8"), "", "did you mean data.batch_size?"),
    ((*FIELD, "--trainer.max_epoch=1"), "", "did you mean trainer.max_epochs?"),
    ((*FIELD, "--report.figure=false"), "", "did you mean report.figures?"),
    ((*FIELD, "--pentachoron.tolerence=1"), "", "did you mean pentachoron.tolerance?"),
    ((*LERP, "--model.geometry.knd=random"), "", "did you mean model.geometry.kind?"),
    ((*PRETRAIN, "--model.n_layers=3"), "", "model.n_layers is not a key"),
    ((*FIELD, "--config=mine.yaml"), "trainer: {max_step: 3}", "mine.yaml: trainer.max_step is not a key"),
    ((*FIELD, "--config=mine.yaml"), "relationl: {}", "did you mean relational?"),
    # types
    ((*FIELD, "--model.lr=fast"), "", "model.lr is fast; it must be a number above 0"),
    ((*FIELD, "--model.layers=some"), "", "model.layers is some"),
    ((*FIELD, "--data.val_fraction=[0.1]"), "", "data.val_fraction is"),
    ((*FIELD, "--trainer.precision=bf15"), "", "trainer.precision is bf15"),
    (
        (*FIELD, "--trainer.max_epochs=1.5"),
        "",
        "trainer.max_epochs is 1.5; it must be an integer of at least -1 or null",
    ),
    ((*FIELD, "--trainer.devices=two"), "", "trainer.devices is two"),
    ((*FIELD, "--relational.baselines=perhaps"), "", "it must be true or false"),
    ((*FIELD, "--config=mine.yaml"), "model: {init_args: {lr: null}}", "model.lr is null; it must be a number"),
    ((*FIELD, "--config=mine.yaml"), "data: 7", "mine.yaml: data is 7; it must be a mapping"),
    # ranges
    ((*FIELD, "--model.lr=0"), "", "model.lr is 0; it must be a number above 0"),
    ((*FIELD, "--model.lr=.nan"), "", "model.lr is nan; it must be a number above 0"),
    ((*FIELD, "--model.layers=[0,6]"), "", "model.layers: layer 6 does not exist; the encoder has 6 layers, 0 … 5"),
    ((*FIELD, "--model.seed=-1"), "", "model.seed is -1"),
    ((*FIELD, "--data.val_fraction=1"), "", "data.val_fraction is 1; it must be a number between 0 and 1"),
    ((*FIELD, "--data.num_workers=-1"), "", "data.num_workers is -1; it must be an integer of at least 0"),
    ((*FIELD, "--trainer.limit_train_batches=2.5"), "", "limit_train_batches is 2.5"),
    ((*FIELD, "--trainer.accumulate_grad_batches=0"), "", "trainer.accumulate_grad_batches is 0"),
    ((*FIELD, "--checkpoint.save_top_k=0"), "", "checkpoint.save_top_k is 0"),
    ((*FIELD, "--relational.bootstrap=39"), "", "relational.bootstrap is 39"),
    ((*FIELD, "--seed_everything=4294967296"), "", "at most 4294967295"),
    ((*PRETRAIN, "--data.pair_fraction=1"), "", "data.pair_fraction"),
    # combinations
    ((*FIELD, "--model.modulator.initial_alpha=0.5"), "", "alpha_max (0.35)"),
    ((*FIELD, "--model.modulator.expert_edim=3"), "", "a simplex of k = 4 needs as many dimensions"),
    ((*FIELD, "--model.geometry.kind=random"), "", "a FieldModulator has no geometric embeddings"),
    ((*LERP, "--model.modulator.n_geometric_dims=129"), "", "a stream of width 128"),
    ((*LERP, "--model.geometry.kind=none", "--model.modulator.learnable_alpha=false"), "", "no trainable parameter"),
    ((*FIELD, "--trainer.max_epochs=-1"), "", "set max_epochs or max_steps"),
    ((*FIELD, "--trainer.min_epochs=11"), "", "must not be above max_epochs"),
    ((*FIELD, "--trainer.enable_checkpointing=false"), "", "trainer.enable_checkpointing is false"),
    ((*FIELD, "--trainer.use_distributed_sampler=true", "--trainer.devices=2"), "", "shards the batches itself"),
    ((*FIELD, "--model=modulators.AdaptedT5"), "", "model.adapter is missing"),
    # files and folders
    ((*FIELD, "--model.backbone=/nowhere/t5"), "", "model.backbone: no folder /nowhere/t5"),
    ((*FIELD, "--data.nltk_data=/nowhere"), "", "data.nltk_data: /nowhere: no WordNet here"),
    ((*LERP, "--model.modulator.geometry=nowhere.npy"), "", "geometry nowhere.npy cannot be read"),
    ((*FIELD, "--data.prompts=nowhere.txt"), "", "data.prompts: nowhere.txt cannot be read"),
    ((*FIELD, "--resume=."), "", "--resume: no checkpoint"),
    ((*FIELD, "--output=mine.yaml/run"), "x: 1", "--output: mine.yaml/run cannot be a folder"),
    # hostile
    ((*FIELD, f"--model={_class('os.system', command='touch harm')}"), "", "os.system is none of"),
    ((*FIELD, f"--model.modulator={_class('subprocess.Popen', args='touch harm')}"), "", "is none of"),
    ((*FIELD, f"--trainer.logger={_class('builtins.exec', source='1')}"), "", "builtins.exec is none of"),
    ((*FIELD, f"--trainer.callbacks+={_class('torch.hub.load', repo='x')}"), "", "torch.hub.load is none of"),
    ((*FIELD, "--trainer.plugins=torch.load"), "", "torch.load is none of"),
    ((*FIELD, "--trainer.profiler=evil.Foo"), "", "evil.Foo is none of"),
    (
        (*FIELD, f"--trainer.callbacks={_class('lightning.pytorch.callbacks.LambdaCallback', setup='os.system')}"),
        "",
        "LambdaCallback is none of",
    ),
    (
        (*FIELD, f"--trainer.strategy={_class('lightning.pytorch.strategies.DDPStrategy', ddp_comm_hook='os.system')}"),
        "",
        "ddp_comm_hook is os.system",
    ),
    ((*FIELD, "--config=mine.yaml"), "model: !!python/object/apply:os.system ['touch harm']", "invalid YAML"),
    ((*FIELD, "--config=mine.yaml"), "trainer: &a {callbacks: [*a]}", "mine.yaml"),
    ((*FIELD, "--config=mine.yaml"), "a: &a [1]\nb: " + "[" * 3000, "mine.yaml"),
    ((*FIELD, "--config=mine.yaml"), "data: {class_path: stranger.Foo}", "stranger.Foo is none of"),
]
assert len(ALL) == 60

_slowest = 0.0


@pytest.mark.parametrize("number", sorted(random.Random(0).sample(range(len(ALL)), many(len(ALL), 4))))
def test_refused(number: int, tmp_path: Path, tally: Tally) -> None:
    global _slowest
    argv, text, part = ALL[number]
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "stranger.py").write_text("open('harm', 'w')\nclass Foo: ...\n")
    tally.tried(KIND)
    began = time.monotonic()
    done = process("fit", *argv, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    took = time.monotonic() - began
    assert done.returncode == 1
    assert done.stdout == ""
    line, *rest = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert part in line
    assert not rest, done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"mine.yaml", "stranger.py"}
    assert took < GENEROUS
    _slowest = max(_slowest, took)
    tally.survived(KIND)
    tally.rows[KIND].note = NOTE.format(_slowest)
