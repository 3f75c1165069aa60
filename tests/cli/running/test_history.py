"""What a run folder keeps of its parts: the configuration and the command of each, and no secret."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from callbacks.reporting.history import parts_of
from cli.check import check
from cli.command import read_command
from tests.cli.conftest import Call
from tests.cli.test_command import saved_run

TOKEN = "hf_" + "Recognisable0123456789"


@pytest.fixture
def quick(wordnet: str) -> list[str]:
    quick = ["--data.nltk_data", wordnet, "--report.figures=false", "--relational.baselines=false"]
    return [*quick, "--relational.bootstrap", "0", "--pentachoron.stop", "false"]


def kept(run: str) -> dict[str, str]:
    return {path.name: path.read_text() for path in Path(run).glob("config*.yaml")}


def test_every_part_keeps_its_configuration_and_command(call: Call, quick: list[str]) -> None:
    every = ["--checkpoint.every_n_train_steps", "4", "--checkpoint.save_top_k", "-1"]
    first = ["fit", "--config", "field.yaml", *quick, *every, "--trainer.max_steps", "8", "--output", "mine"]
    assert call(*first).code == 0
    begun = kept("mine")
    assert begun.keys() == {"config.yaml"}

    # a resume that trains nothing, one that is refused, and one that fails in its first steps leave it as it is
    assert call("fit", "--resume", "mine", "--model.lr", "0.5").code == 0
    assert call("fit", "--resume", "mine", "--model.modulator.expert_ks", "[1]").code == 1
    assert call("fit", "--resume", "mine", "--model.lr", "1e6", "--trainer.max_steps", "12").code == 1
    assert kept("mine") == begun
    report = json.loads(Path("mine/report.json").read_text())
    assert report["run"]["command"] == ["train.py", *first]

    # repeated at one step, none overwrites an older one
    second = ["fit", "--resume", "mine", "--model.lr", "5e-3", "--trainer.max_steps", "12"]
    third = ["fit", "--resume", "mine", "--model.lr", "5e-4"]
    assert call(*second).code == 0
    Path("mine/checkpoints/step_00000012.ckpt").unlink()
    assert call(*third).code == 0
    now = kept("mine")
    assert now.keys() == {"config.yaml", "config_until_step_00000008.yaml", "config_until_step_00000008_2.yaml"}
    assert now["config_until_step_00000008.yaml"] == begun["config.yaml"]
    rates = {name: yaml.safe_load(text)["model"]["init_args"]["lr"] for name, text in now.items()}
    assert (rates["config_until_step_00000008_2.yaml"], rates["config.yaml"]) == (5e-3, 5e-4)

    # what was given up is in no report; each part that is left has its command
    report = json.loads(Path("mine/report.json").read_text())
    parts = [
        {"from_step": 0, "command": ["train.py", *first], "config": "config_until_step_00000008.yaml"},
        {"from_step": 8, "command": ["train.py", *third], "config": "config.yaml"},
    ]
    assert report["run"]["parts"] == parts == parts_of(Path("mine"))
    assert report["run"]["command"] == ["train.py", *first]
    card = Path("mine/modulator/README.md").read_text()
    assert "- Command: `train.py fit --config field.yaml" in card
    assert "- From step 8 on: `train.py fit --resume mine --model.lr 5e-4`" in card
    assert "from step 8" in Path("mine/report.md").read_text()


def test_parts_without_a_change_of_settings_share_a_configuration(tmp_path: Path) -> None:
    line = "# from step {}: train.py fit --resume mine\n".format
    (tmp_path / "config_until_step_00000008.yaml").write_text(line(0) + line(4) + "a: 1\n")
    (tmp_path / "config_until_step_00000020.yaml").write_text(line(8) + "# not one of ours\n" + line(9) + "a: 2\n")
    (tmp_path / "config_until_step_00000012.yaml").write_text(line(20) + "a: 3\n")  # damaged from there on
    (tmp_path / "config.yaml").write_text(line(12) + line(14) + "a: 4\n")
    assert [(part["from_step"], part["config"]) for part in parts_of(tmp_path)] == [
        (0, "config_until_step_00000008.yaml"),
        (4, "config_until_step_00000008.yaml"),
        (8, "config_until_step_00000020.yaml"),
        (12, "config.yaml"),
        (14, "config.yaml"),
    ]


def test_a_run_of_an_earlier_version_keeps_the_command_of_its_report(tmp_path: Path) -> None:
    from callbacks.reporting import history

    (tmp_path / "config.yaml").write_text("model: {}\n")
    assert history.head_of(tmp_path) == ""
    report: dict[str, Any] = {"run": {"stage": "fit", "command": ["train.py", "fit", "--config", "a b.yaml"]}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert history.head_of(tmp_path) == "# from step 0: train.py fit --config 'a b.yaml'\n"
    assert parts_of(tmp_path) == [{"from_step": 0, "command": report["run"]["command"], "config": "config.yaml"}]
    report["run"]["command"] = ["train.py", "fit", "--resume", "mine"]
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert history.head_of(tmp_path) == ""


HIDDEN = {
    "data.nltk_data": "https://***@host/wordnet",
    "data.prompts": ["a *** word"],
    "model.cache_folder": "/scratch/***/cache",
    "trainer.logger.api_key": "***",
    "trainer.logger": [{"class_path": "lightning.pytorch.loggers.CometLogger", "init_args": {"api_key": "***"}}],
}


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("key", HIDDEN)
def test_a_hidden_value_is_never_read_back(subcommand: str, key: str, tmp_path: Path, monkeypatch: Any) -> None:
    """It is the default again, or what is given again; what stands beside it stays."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cli.check._NEEDS", {})  # comet-ml is not installed
    run = saved_run("--data.batch_size", "7", "--trainer.logger", "CometLogger", "--trainer.logger.offline", "true")
    config = yaml.safe_load((run / "config.yaml").read_text())
    above, _, name = key.rpartition(".")
    node = config["trainer"] if name == "logger" else config[above.split(".")[0]]
    if above == "trainer.logger":
        node = node["logger"]
    (node if name == "logger" else node["init_args"])[name] = HIDDEN[key]
    (run / "config.yaml").write_text(yaml.safe_dump(config))

    merged = check(read_command([subcommand, "--resume", str(run)]))
    assert "***" not in json.dumps(merged)
    assert merged["data"]["init_args"]["batch_size"] == 7
    if above == "trainer.logger":
        assert merged["trainer"]["logger"]["init_args"] == {"offline": True}
    again = {"data.prompts": "[dog]", "trainer.logger": "RunWandb"}.get(key, "null")
    assert "***" not in json.dumps(check(read_command([subcommand, "--resume", str(run), f"--{key}", again])))


def test_what_was_hidden_is_said(call: Call, quick: list[str]) -> None:
    words = ["fit", "--config", "field.yaml", *quick, "--trainer.max_steps", "1", "--output", "mine"]
    (Path("scratch") / TOKEN).mkdir(parents=True)
    own = ["--model.cache_folder", f"scratch/{TOKEN}"]
    assert call(*words, *own).code == 0
    assert "cache_folder: scratch/***" in Path("mine/config.yaml").read_text()
    assert TOKEN not in Path("mine/config.yaml").read_text()
    said = call("validate", "--resume", "mine")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[0].endswith(
        "changed: model.cache_folder scratch/*** (hidden when it was saved) → null"
    )
    said = call("validate", "--resume", "mine", *own)
    assert (said.code, said.err) == (0, "")
    assert "changed" not in said.out.splitlines()[0]
