"""Every file in configs/ is run: a configuration that nobody runs is one that no longer works."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from cli.configuration.files import CONFIGS
from cli.configuration.schema import load
from modulant.assets import MINI
from tests.runs import main, process, small_wordnet

QUICK = [
    "--report.figures=false",
    "--relational.baselines=false",
    "--relational.bootstrap=40",
    "--trainer.max_steps=2",
    "--output=run",
]
# Run by a test of their own; every other configuration is an overlay on field.yaml, or runs alone.
ALONE = {"encoder.yaml", "field.yaml", "lerp.yaml"}
OWN_TEST = {
    *(
        "causal.yaml",
        "t5_small.yaml",
        "ddp.yaml",
        "fsdp.yaml",
        "multi_node.yaml",
        "slurm.yaml",
        "wandb.yaml",
        "pretrain_mini.yaml",
    ),
}
# causal.yaml: tests/modulators/training/test_causal.py
# slurm.yaml, multi_node.yaml: tests/faults; wandb.yaml: tests/callbacks/loggers/test_wandb.py


@pytest.fixture(scope="session")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_wordnet(tmp_path_factory.mktemp("nltk_data")))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fit(*argv: str) -> dict[str, object]:
    main()(["fit", *argv])
    return dict(json.loads(Path("run/report.json").read_text()))


@pytest.mark.parametrize("name", sorted({path.name for path in CONFIGS.glob("*.yaml")} - OWN_TEST))
def test_it_trains(name: str, wordnet: str) -> None:
    configs = ["--config", name] if name in ALONE else ["--config", "field.yaml", "--config", name]
    report = fit(*configs, f"--data.nltk_data={wordnet}", *QUICK, "--data.batch_size=32")
    assert report["run"]["outcome"] == "finished"  # type: ignore[index]
    assert report["run"]["steps"] == 2  # type: ignore[index]


@pytest.mark.parametrize("name", sorted(path.name for path in (CONFIGS / "controls").glob("*.yaml")))
def test_a_control_trains(name: str, wordnet: str) -> None:
    """Over the modulator that has what the control takes away."""
    base = "field.yaml" if name.startswith(("features_", "gate_")) else "lerp.yaml"
    report = fit("--config", base, "--config", f"controls/{name}", f"--data.nltk_data={wordnet}", *QUICK)
    assert report["run"]["outcome"] == "finished"  # type: ignore[index]
    model = report["model"]["describe"]  # type: ignore[index]
    if name in ("lora.yaml", "lora_slow.yaml", "ia3.yaml", "full.yaml"):
        assert model["class"] == ("TunedT5" if name == "full.yaml" else "AdaptedT5")
    elif name.startswith("taxonomy_"):
        assert f"taxonomy_{model['objective']['taxonomy']}.yaml" == name
    elif base == "field.yaml":
        arguments = model["modulator_args"]
        assert f"features_{arguments['features']}.yaml" == name if "gate" in arguments else name == "gate_source.yaml"
    else:
        kind = {"no_geometry": "none", "training_anchors": "wordnet", "fixed_alpha": "wordnet"}
        assert model["geometry"]["kind"] == kind.get(Path(name).stem, Path(name).stem)


def test_t5_small(wordnet: str, tmp_path: Path) -> None:
    """Random weights of T5-small's shape, in the hub's layout, stand in for a download."""
    config = T5Config(
        vocab_size=32128, d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8, decoder_start_token_id=0
    )
    tokenizer = AutoTokenizer.from_pretrained(MINI)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5-small")
    tokenizer.save_pretrained(tmp_path / "t5-small")
    argv = ["--config", "field.yaml", "--config", "t5_small.yaml", f"--data.nltk_data={wordnet}", *QUICK]
    report = fit(
        *argv, f"--model.backbone={tmp_path / 't5-small'}", "--data.batch_size=4", "--trainer.limit_val_batches=1"
    )
    assert report["model"]["parameters"]["trainable"] == 38_533  # type: ignore[index]


def test_t5_small_names_the_hub() -> None:
    overlay = yaml.safe_load((CONFIGS / "t5_small.yaml").read_text())
    assert overlay["model"]["init_args"]["backbone"] == "google-t5/t5-small"


def test_pretrain_mini(wordnet: str) -> None:
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_heads": 2, "num_layers": 2, "num_decoder_layers": 1}
    small = [f"--model.{name}={size}" for name, size in sizes.items()]
    data = ["--data.tokenizer", str(MINI), "--data.batch_size=16", f"--data.nltk_data={wordnet}"]
    steps = ["--trainer.max_steps=2", "--trainer.val_check_interval=1", "--trainer.limit_val_batches=1"]
    report = fit("--config", "pretrain_mini.yaml", *small, *data, *steps, "--report.figures=false", "--output=run")
    assert report["run"]["steps"] == 2  # type: ignore[index]
    # what it leaves is a backbone
    model = T5ForConditionalGeneration.from_pretrained("run/backbone", dtype=torch.float32)
    assert model.config.d_model == 16
    AutoTokenizer.from_pretrained("run/backbone")


@pytest.mark.slow  # tests/cli/running/test_processes.py runs the same overlay, and looks closer
def test_ddp(wordnet: str, tmp_path: Path) -> None:
    two = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--data.batch_size=8"]
    argv = ["--config", "field.yaml", "--config", "ddp.yaml", f"--data.nltk_data={wordnet}", *QUICK, *two]
    done = process("fit", *argv, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow  # tests/modulant/backbones/test_sharding.py looks closer
@pytest.mark.parametrize("name", ["field", "lerp"])
def test_fsdp(name: str, wordnet: str, tmp_path: Path) -> None:
    """The overlay, as it is but for the device; then the same run by one process that deals nothing out."""
    two = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--data.batch_size=8"]
    given = ["--config", name, f"--data.nltk_data={wordnet}", *QUICK]
    done = process("fit", *given, "--config=fsdp.yaml", *two, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(Path("run/report.json").read_text())
    assert report["environment"]["strategy"] == "ShardedStrategy"
    assert {path.name for path in Path("run/modulator").iterdir()} == {
        *("README.md", "modulator.safetensors", "modulator_config.json"),
    }
    one = ["--trainer.strategy=auto", "--trainer.devices=1", "--data.batch_size=16", "--trainer.max_steps=3"]
    main()(["fit", "--resume=run", *one])
    assert json.loads(Path("run/report.json").read_text())["run"]["steps"] == 3


@pytest.mark.parametrize("name", ["field.yaml", "lerp.yaml"])
def test_what_a_user_may_want_to_change_is_there(name: str) -> None:
    """Every argument of the modulator is in its configuration; `null_space_seed` has a comment where it matters."""
    content = yaml.safe_load((CONFIGS / name).read_text())
    for node in (content["model"]["init_args"]["modulator"], content["model"], content["data"]):
        parameters = load()["$defs"][node["class_path"]]["properties"].keys() - {"backbone"}
        without = {"null_space_seed", "seed", "mask_share"} | ({"geometry"} if name == "field.yaml" else set())
        assert parameters - node["init_args"].keys() <= without


def test_field_and_lerp_differ_in_the_modulator_alone() -> None:
    field, lerp = (yaml.safe_load((CONFIGS / name).read_text()) for name in ("field.yaml", "lerp.yaml"))
    for config in (field, lerp):
        del config["model"]["init_args"]["modulator"]
        config["model"]["init_args"].pop("geometry", None)  # only LERP has one
        # LERP's points need more decay, and it keeps near the frozen encoder by itself.
        config["model"]["init_args"].pop("weight_decay")
        config["model"]["init_args"]["objective"]["init_args"].pop("keep")
        config["model"]["init_args"]["objective"]["init_args"].pop("all_pairs")  # its lift of all pairs lay lower
        config["pentachoron"].pop("tolerance")  # and moves the CV further
    assert field == lerp
