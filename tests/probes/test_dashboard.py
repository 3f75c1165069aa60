"""The dashboard's specification, to the letter; that a run logs what it names, callbacks/loggers/test_wandb.py says."""

import json
import re
from pathlib import Path

import pytest

import probe

pytest.importorskip("wandb_workspaces")
# wandb-workspaces on itself
pytestmark = pytest.mark.filterwarnings("ignore:.*[Pp]ydantic:DeprecationWarning")
SNAPSHOT = Path(__file__).with_name("dashboard.json")  # python probe.py dashboard --entity somebody --output FILE


def test_the_specification_is_the_one_that_was_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["dashboard", "--entity", "somebody", "--output", str(tmp_path / "spec.json")]) == 0
    assert (tmp_path / "spec.json").read_text() == SNAPSHOT.read_text()
    capsys.readouterr()
    assert probe.main(["dashboard", "--entity", "somebody", "--dry-run"]) == 0
    assert capsys.readouterr().out == SNAPSHOT.read_text()


def test_one_chart_holds_every_layer_and_each_expert_has_one(capsys: pytest.CaptureFixture[str]) -> None:
    probe.main(["dashboard", "--entity", "somebody", "--experts", "lerp,k10", "--dry-run"])
    sections = json.loads(capsys.readouterr().out)["spec"]["section"]["panelBankConfig"]["sections"]
    patterns = [p["config"]["metricRegex"] for p in sections[0]["panels"] if "metricRegex" in p["config"]]
    layers, lerp, k10 = (re.compile(pattern) for pattern in patterns)
    logged = [f"alpha/layer_{layer:02d}{expert}" for layer in (0, 5, 11) for expert in ("", "_lerp", "_k1", "_k10")]
    assert [key for key in logged if layers.search(key)] == logged[0::4]
    assert [key for key in logged if lerp.search(key)] == logged[1::4]
    assert [key for key in logged if k10.search(key)] == logged[3::4]


def test_without_an_account_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert probe.main(["dashboard", "--entity", "somebody"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: W&B: ")
    assert told.count("\n") == 1
