"""What is wrong is told before torch, lightning and transformers are imported; what is right passes the same checks."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.check import check
from cli.command import read_command
from cli.configuration.files import configurations
from tests.cli.mistakes import CASES, LATE_PARTS
from tests.runs import ROOT

# What only the libraries know, or needs a file's content.
LATE = {("fit", "--config", "field.yaml", "--model.backbone", "nobody/nothing"), *LATE_PARTS}

_SCRIPT = """
import contextlib, io, json, sys
import train
late = []
for argv in json.load(sys.stdin):
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        train.main(argv)
        late.append([*argv, "passed"])
    if {"torch", "lightning", "transformers", "torchmetrics"} & sys.modules.keys():
        late.append(argv)
        break
print(json.dumps(late))
"""


def test_no_library_is_imported_for_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cases = [list(argv) for argv in CASES if argv not in LATE]
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("path", sorted(configurations()), ids=lambda path: path.name)
def test_every_configuration_passes(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("a small dog"))  # talk.yaml reads it
    complete = ("field.yaml", "lerp.yaml", "encoder.yaml", "causal.yaml", "pretrain_mini.yaml")
    alone = path.name in complete or path.parent.name == "wavegpt"
    bases = [["field.yaml"], ["lerp.yaml"]]
    if path.parent.name == "controls":
        bases = [["field.yaml" if path.stem.startswith(("features_", "gate_", "ia3")) else "lerp.yaml"]]
    for base in [[]] if alone else bases:
        configs = [word for name in (*base, str(path)) for word in ("--config", name)]
        # an encoder writes no answers
        for subcommand in ("fit", "validate", "test", *(() if path.name == "encoder.yaml" else ("predict",))):
            check(read_command([subcommand, *configs]))


def refused(*argv: str) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        check(read_command(argv))
    return str(caught.value)


def test_values_are_those_that_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later file wins over an earlier one, an option over both; a new class forgets what only the old one knew."""
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("model: {init_args: {schedule: constant, modulator: {init_args: {alpha_max: 0.005}}}}")
    field = ("fit", "--config", "field.yaml")
    assert "alpha_max (0.005)" in refused(*field, "--config", "bad.yaml")
    check(read_command([*field, "--config", "bad.yaml", "--config", "field.yaml"]))
    alpha = "--model.modulator.init_args.initial_alpha"
    check(read_command([*field, "--config", "bad.yaml", "--model.init_args.lr=1", alpha, "0.002"]))
    lora = (*field, "--config", "bad.yaml", "--config", "controls/lora.yaml")
    found = check(read_command([*lora, "--model.lr", "1e-3"]))["model"]
    assert found["class_path"] == "modulators.AdaptedT5"
    assert found["init_args"]["lr"] == 1e-3
    assert found["init_args"]["schedule"] == "constant"
    assert "modulator" not in found["init_args"]


def test_short_and_former_names_become_full_ones() -> None:
    named = ("fit", "--config", "field.yaml", "--model.modulator")
    for name in ("LerpModulator", "modulators.LerpModulator", "modulators.lerp.LerpModulator"):
        stop = ("--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss")
        found = check(read_command([*named, name, *stop]))
        assert found["model"]["init_args"]["modulator"]["class_path"] == "modulators.LerpModulator"
        assert found["trainer"]["callbacks"]["class_path"] == "lightning.pytorch.callbacks.EarlyStopping"
    for name in ("LerpModulato", "evil.LerpModulator", "modulators.lerp"):
        assert f"{name} is none of" in refused(*named, name)


def test_a_logger_keeps_names_that_look_like_yaml() -> None:
    name = ("--trainer.logger.name", "alpha: 0.5")
    found = check(read_command(["fit", "--config", "field.yaml", "--config", "wandb.yaml", *name]))
    assert found["trainer"]["logger"]["init_args"]["name"] == "alpha: 0.5"


@pytest.mark.parametrize(("name", "value"), [("WANDB_MODE", "onlin"), ("WANDB_RUN_ID", "a/b")])
def test_variables_that_wandb_would_refuse(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    check(read_command(["fit", "--config", "field.yaml"]))
    line = refused("fit", "--config", "field.yaml", "--config", "wandb.yaml")
    assert line.startswith(f"trainer.logger: the environment's {name} is {value}; it must be ")


def test_lists_are_appended_to() -> None:
    """``+`` appends; keys without a class are of the one that was appended last."""
    more = ["--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"]
    more += ["--trainer.callbacks+=LearningRateMonitor"]
    found = check(read_command(["fit", "--config", "field.yaml", *more]))["trainer"]["callbacks"]
    assert [one["class_path"].rpartition(".")[2] for one in found] == ["EarlyStopping", "LearningRateMonitor"]
    assert found[0]["init_args"] == {"monitor": "val/loss"}


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (("--config", "field.yaml", "--model.geometry", "{}"), ("model.geometry: a FieldModulator",)),
        (("--config", "lerp.yaml", "--model.modulator.n_geometric_dims", "129"), ("stream of width 128",)),
        (("--config", "lerp.yaml", "--model.geometry.n_anchors", "20001"), ("at most 20000",)),
        (
            ("--config", "lerp.yaml", "--model.geometry.kind", "none", "--model.modulator.learnable_alpha", "false"),
            ("model.modulator: it has no trainable parameter",),
        ),
        (("--config", "field.yaml", "--trainer.max_epochs", "-1"), ("over inf steps", "max_steps")),
        (("--config", "field.yaml", "--trainer.max_steps", "0"), ("over 0 steps",)),
        (("--config", "pretrain_mini.yaml", "--trainer.max_steps", "-1"), ("over inf steps",)),
        (("--config", "field.yaml", "--trainer.min_epochs", "20"), ("must not be above max_epochs, which is 15",)),
        (("--config", "field.yaml", "--trainer.barebones", "true"), ("trainer.barebones",)),
        (("--config", "field.yaml", "--trainer.enable_checkpointing", "false"), ("see checkpoint",)),
        (
            ("--config", "field.yaml", "--trainer.devices=2", "--trainer.use_distributed_sampler=true"),
            ("shards the batches itself",),
        ),
        (("--config", "pretrain_mini.yaml", "--trainer.val_check_interval", "0.5"), ("must be a whole number",)),
        (("--config", "field.yaml", "--trainer.max_time", "soon"), ("DD:HH:MM:SS",)),
        (("--config", "field.yaml", "--trainer.gradient_clip_algorithm", "abs"), ("norm or value",)),
        (("--config", "field.yaml", "--trainer.strategy", "dpp"), ("did you mean ddp?",)),
        (
            ("--config", "wandb.yaml", "--config", "field.yaml", "--trainer.logger.entitty", "a"),
            ("trainer.logger.entity?",),
        ),
        (("--config", "field.yaml", "--trainer.logger", "WandbLogger", "--trainer.logger.ofline", "1"), ()),
        (("--config", "field.yaml", "--trainer.callbacks+", "EarlyStoping"), ("did you mean EarlyStopping?",)),
        (("--config", "field.yaml", "--model", "AdaptedT5"), ("model.adapter is missing", "lora or ia3")),
        (("--config", "field.yaml", "--model.backbone", "x.npy/"), ()),
        (("--config", "field.yaml", "--model.cache", "memory"), ("model.cache", "layer 0", "[3, 4, 5]")),
        (
            ("--config", "field.yaml", "--model.layers=[3]", "--model.cache", "disk", "--data.regroup", "true"),
            ("data.regroup is true", "set model.cache to null"),
        ),
        (("--config", "field.yaml", "--model.cache_folder", "nowhere"), ("model.cache_folder: no folder nowhere",)),
        (("--config", "field.yaml", "--model.seed", str(2**63)), ("model.seed", "at most")),
        (("--config", "field.yaml", "--seed_everything", str(2**32)), ("at most 4294967295",)),
        (("--config", "field.yaml", "--trainer.gradient_clip_val", ".nan"), ("trainer.gradient_clip_val is .nan",)),
    ],
    ids=lambda value: " ".join(value[2:]) if value and value[0] == "--config" else None,
)
def test_combinations_and_ranges(
    argv: tuple[str, ...], parts: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if not parts:  # left to the libraries: W&B takes any keyword, and that may be a hub id
        check(read_command(["fit", *argv]))
        return
    line = refused("fit", *argv)
    for part in parts:
        assert part in line


def test_a_backbones_folder_is_read_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    field = ("fit", "--config", "field.yaml", "--model.backbone", "t5")
    Path("t5").mkdir()
    config = {"model_type": "t5", "num_layers": 2, "d_model": 8}
    Path("t5/config.json").write_text(json.dumps(config))
    check(read_command([*field, "--model.layers", "[0,1]"]))
    assert "layer 2 does not exist; the encoder has 2 layers" in refused(*field, "--model.layers", "[2]")
    Path("t5/config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    assert "'t5' is a bert" in refused(*field)
    for text in ("{", "[]", "3", json.dumps({"model_type": "t5"}), "\x00"):  # left to transformers
        Path("t5/config.json").write_text(text)
        check(read_command([*field, "--model.layers", "[99]"]))


def test_files_that_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    field, lerp = ("fit", "--config", "field.yaml"), ("fit", "--config", "lerp.yaml")
    Path("empty.txt").touch()
    Path("binary.txt").write_bytes(b"\xff\xfe")
    assert "there is no prompt" in refused(*field, "--data.prompts", "empty.txt")
    assert "no text in UTF-8" in refused(*field, "--data.prompts", "binary.txt")
    assert "must be a .npy" in refused(*lerp, "--model.modulator.geometry", "empty.txt")
    assert "there is no such file" in refused(*lerp, "--model.modulator.geometry", "x.npy")
    for name in ("x" * 5000, "a\x00b"):
        for key in ("data.prompts", "data.nltk_data", "model.modulator.geometry"):
            assert refused(*lerp, f"--{key}", name).startswith(key.rpartition(".")[0])


def test_whole_batches_may_be_written_as_floats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As typing's cache of unions makes a parser save them, by the order of imports; a share above 1 is none."""
    monkeypatch.chdir(tmp_path)
    field = ("fit", "--config", "field.yaml")
    Path("some.yaml").write_text("trainer: {limit_train_batches: 3.0, overfit_batches: 2.0}")
    check(read_command([*field, "--config", "some.yaml"]))
    Path("some.yaml").write_text("trainer: {limit_train_batches: 2.5}")
    assert "trainer.limit_train_batches is 2.5; it must be one of" in refused(*field, "--config", "some.yaml")
