"""The experiment from end to end, on little text; a second time it trains nothing."""

import json
import random
from pathlib import Path

import pytest
import torch

import probes.waves.command as experiment
from datamodules import TextDataModule
from probe import main
from probes.waves.arms import BASELINE, WAVE_ATTENTION
from probes.waves.testing import measure
from wavegpt import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NOPE = "phase-nope"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("waves")
    drawn, words = random.Random(1), [f"word{i}" for i in range(60)]
    texts = [" ".join(drawn.choices(words, weights=[1 / (i + 1) for i in range(60)], k=30)) for _ in range(600)]
    (folder / "text.txt").write_text("\n\n".join(texts))
    patch = pytest.MonkeyPatch()
    patch.setattr(experiment, "grid_of", lambda arm: [4e-3])
    patch.setattr(experiment, "extension", lambda found, factor: [])
    patch.setattr(experiment, "neighbours", lambda found, start: [] if found else [start])
    assert main(_words(folder)) == 0
    patch.undo()
    return folder / "out"


def _words(folder: Path) -> list[str]:
    return [
        "waves", "--corpus", str(folder / "text.txt"), "--vocab-size", "300", "--d-model", "16", "--heads", "2",
        "--layers", "1", "--context", "16", "--batch-tokens", "128", "--steps", "12", "--seeds", "0,1",
        "--no-factorial", "--lines", "phase", "--arms", NOPE, "--held-out", "0.1", "--output", str(folder / "out"),
        "--trainer.accelerator", "cpu",
    ]  # fmt: skip


def test_the_report_is_of_the_runs(output: Path) -> None:
    found = json.loads((output / "report.json").read_text())
    arms = found["arms"]
    assert list(arms) == [BASELINE, WAVE_ATTENTION, NOPE]
    differences = [arms[NOPE][s]["bits_per_byte"] - arms[WAVE_ATTENTION][s]["bits_per_byte"] for s in ("0", "1")]
    assert found["figures"][f"phase/{NOPE}/difference"] == pytest.approx(sum(differences) / 2)
    page = (output / "report.md").read_text()
    assert f"| {NOPE} " in page
    assert "more than 1% apart" not in page
    assert {path.name for path in (output / "figures").iterdir()} >= {"effects_phase.png", "curves.png", "tuning.png"}


def test_the_test_is_an_evaluation(output: Path) -> None:
    """On the validation part it gives what the run has logged; groups add up to the whole."""
    settings = json.loads((output / "waves.json").read_text())["settings"]
    data = TextDataModule(
        corpus=settings["corpus"], vocab_size=300, context=16, batch_tokens=128, val_fraction=0.1, test_fraction=0.1
    )
    data.prepare_data()
    data.setup()
    run = output / NOPE / "seed_0"
    logged = json.loads((run / "report.json").read_text())["run"]["metrics"]["val/bits_per_byte"]["last"]
    found = measure(load(run / "wavegpt"), data, torch.device("cpu"), "val")
    assert found["bits_per_byte"] == pytest.approx(logged, rel=1e-5)
    for by in ("by_frequency", "by_position"):
        parts = [(n, mean) for n, mean in zip(found[by]["tokens"], found[by]["nats_per_token"], strict=True) if n]
        assert sum(n for n, _ in parts) == found["tokens"]
        assert sum(n * mean for n, mean in parts) / found["tokens"] == pytest.approx(found["nats_per_token"])


def test_arms_share_seeds_and_batches(output: Path) -> None:
    """The order of the data follows from the seed, not from the arm."""
    import yaml

    orders = {
        (arm, seed): yaml.safe_load((output / arm / f"seed_{seed}" / "config.yaml").read_text())["data"]["init_args"]
        for arm in (BASELINE, NOPE)
        for seed in (0, 1)
    }
    assert orders[BASELINE, 0] == orders[NOPE, 0]
    assert (orders[NOPE, 0]["order_seed"], orders[NOPE, 1]["order_seed"]) == (0, 1)
    assert orders[NOPE, 0]["seed"] == orders[NOPE, 1]["seed"]


def test_a_second_time_trains_nothing(
    output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiment, "grid_of", lambda arm: [4e-3])
    monkeypatch.setattr(experiment, "extension", lambda found, factor: [])
    monkeypatch.setattr(experiment, "neighbours", lambda found, start: [] if found else [start])
    before = json.loads((output / "report.json").read_text())["figures"]
    assert main(_words(output.parent)) == 0
    assert json.loads((output / "report.json").read_text())["figures"] == before
    assert "runs to do" not in capsys.readouterr().out
