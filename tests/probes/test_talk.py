"""probe.py talk: an artefact is asked without a run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import probe
from modulant.backbones.families import stream_of
from modulant.backbones.t5 import load_config
from modulators import LerpModulator, load_modulated, save_modulator
from tests.runs import tiny_backbone


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("artefact")
    backbone = tiny_backbone(folder / "t5")
    modulator = LerpModulator(stream_of(load_config(backbone)), n_geometric_dims=8, initial_alpha=0.6)
    torch.nn.init.normal_(modulator.proj.weight, std=3.0)
    save_modulator(modulator, folder / "run" / "modulator", backbone, [0, 1], {})
    return str(folder / "run")


def test_it_answers(artefact: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "answers.jsonl"
    asked = ["--prompt", "a small dog", "--alpha-scales", "0,1", "--output", str(file)]
    for place in (artefact, f"{artefact}/modulator"):
        assert probe.main(["talk", place, *asked]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert out.startswith("a small dog\n  original")
        rows: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
        assert [row["alpha_scale"] for row in rows] == [0, 1]
        assert rows[0]["modulated"] == rows[0]["original"]
        assert rows[1]["modulated"] != rows[1]["original"]


def test_it_shows_how_far_each_token_is_moved(artefact: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["talk", artefact, "--prompt", "a small dog", "--inspect"]) == 0
    head, *rows = capsys.readouterr().out.partition("  moved by")[2].splitlines()
    assert head.split() == [",", "%", "layer", "0", "layer", "1", "drift,", "1", "−", "cos"]
    model, tokenizer = load_modulated(f"{artefact}/modulator")
    found = model.modulation.inspect("summarize: a small dog", tokenizer)
    assert [row.split()[0] for row in rows] == found.tokens
    assert "▁dog" in found.tokens
    for row, moved, drift in zip(rows, found.moved.tolist(), found.drift.tolist(), strict=True):
        assert row.split()[1:] == [*(f"{100 * share:.2f}" for share in moved), f"{drift:.4f}"]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["x", "--temperature", "-1", "--prompt", "x"], "temperature is -1.0"),
        (["x", "--alpha-scales", "a"], "'a' must be numbers"),
        (["x", "--prompts", "/nowhere.txt"], "/nowhere.txt cannot be read"),
        (["./nowhere", "--prompt", "x"], "./nowhere"),
    ],
)
def test_one_line(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["talk", *argv]) == 2
    said = capsys.readouterr()
    assert line in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
