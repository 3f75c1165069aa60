"""A wave language model through the command line: each configuration trains, resumes to the bit, and writes text."""

import io
import json
import math
import os
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cli.configuration.files import CONFIGS
from datamodules import TextDataModule
from datamodules.text.tokenizer import TextTokenizer
from tests.faults.processes import differences, figures_of, state_of
from tests.runs import main, process
from wavegpt import PRESETS, WaveConfig, load, preset

NAMES = {name.replace("/", "_"): name for name in PRESETS}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fit(*argv: str, run: str = "run") -> dict[str, Any]:
    main()(["fit", *argv, f"--output={run}", "--report.figures=false"])
    return dict(json.loads(Path(run, "report.json").read_text()))


def test_there_is_a_configuration_for_each_preset() -> None:
    assert {path.stem for path in (CONFIGS / "wavegpt").glob("*.yaml")} == NAMES.keys()


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_configuration_is_its_preset(name: str) -> None:
    """But for sizes, and the length of the source's annealing."""
    model = yaml.safe_load((CONFIGS / "wavegpt" / f"{name}.yaml").read_text())["model"]["init_args"]
    arm = {key: value for key, value in model.items() if key in {field.name for field in fields(WaveConfig)}}
    arm["optimizer"] = {**arm["optimizer"], "lr": float(arm["optimizer"]["lr"])}
    given = WaveConfig(**arm)
    wanted = preset(NAMES[name], d_model=given.d_model, layers=given.layers, heads=given.heads)
    if wanted.embedding.kind == "wave":
        steps = given.embedding.anneal.steps
        assert bool(steps) == bool(wanted.embedding.anneal.steps)
        anneal = replace(wanted.embedding.anneal, steps=steps)
        wanted = replace(wanted, embedding=replace(wanted.embedding, waves=given.embedding.waves, anneal=anneal))
    assert given.attention.amp_init == pytest.approx(wanted.attention.amp_init, abs=1e-6)
    assert replace(given, attention=replace(given.attention, amp_init=wanted.attention.amp_init)) == wanted


# Those whose parts others have too.
SLOW = {f"source_{name}" for name in ("pure_wave_exp", "pure_wave_linear", "pure_wave_sigmoid", "rgd_only", "qfe_only")}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in sorted(NAMES)])
def test_it_trains(name: str, tiny: list[str]) -> None:
    report = fit("--config", f"wavegpt/{name}.yaml", *tiny, "--trainer.max_steps=3")
    assert (report["run"]["outcome"], report["run"]["steps"]) == ("finished", 3)
    bits = report["run"]["metrics"]["val/bits_per_byte"]
    about = report["model"]["describe"]
    # An untrained model gives each token nearly the same chance.
    assert bits["first"] == pytest.approx(about["references"]["uniform"], rel=0.02)
    assert bits["last_step"] == 2
    arm = preset(NAMES[name])
    if name in ("baseline", "wave"):
        assert bits["last"] < bits["first"]
    assert ("val/bits_per_byte_annealed" in report["run"]["metrics"]) == bool(arm.embedding.anneal.steps)
    terms = {key for key in ("phase", "energy") if getattr(arm.loss, key)}
    assert {key[6:] for key in report["run"]["metrics"] if key.startswith("train/")} == {
        "loss",
        *(terms | {"task"} if terms else ()),
    }
    assert about["flops_per_token"] > 3 * 2 * about["parameters"]["head"]
    assert load("run/wavegpt").config.attention.kind == arm.attention.kind


def test_bits_per_byte_are_those_of_the_whole_part(tiny: list[str], text_file: str) -> None:
    """What is logged is what the exported model gives every token of the part, window by window."""
    report = fit("--config", "wavegpt/wave.yaml", *tiny, "--trainer.max_steps=4")
    model, tokenizer = load("run/wavegpt"), TextTokenizer.load(Path("run/wavegpt"))
    data = TextDataModule(text_file, "bpe", 270, 16, 128, 0.1)
    data.setup()
    assert tokenizer.sha256 == data.tokenizer.sha256
    assert (tokenizer.ranks == data.tokenizer.ranks).all()
    tokens = torch.from_numpy(data.shards.tokens("val").astype("int64"))
    nats = []
    for start in range(0, len(tokens) - 1, 16):
        ids = tokens[start : start + 17]
        with torch.no_grad():
            nats.append(torch.nn.functional.cross_entropy(model(ids[None, :-1])[0], ids[1:], reduction="none"))
    logged = {key: series["last"] for key, series in report["run"]["metrics"].items()}
    bits = float(torch.cat(nats).sum()) / math.log(2) / data.shards.describe()["val_bytes"]
    assert logged["val/bits_per_byte"] == pytest.approx(bits, rel=1e-5)
    by_decile: dict[int, list[float]] = {}
    by_position: dict[str, list[float]] = {}
    for n, each in enumerate(torch.cat(nats).tolist()):
        decile = int(data.tokenizer.ranks[tokens[1 + n]]) * 10 // data.tokenizer.vocab_size + 1
        by_decile.setdefault(decile, []).append(each)
        names = ("01", "02_03", "04_07", "08_15", "16")
        by_position.setdefault(names[(n % 16 + 1).bit_length() - 1], []).append(each)
    expected = {f"val/by_frequency/decile_{n:02d}/nats_per_token": sum(v) / len(v) for n, v in by_decile.items()}
    expected |= {f"val/by_position/position_{n}/nats_per_token": sum(v) / len(v) for n, v in by_position.items()}
    assert {key: value for key, value in logged.items() if "/by_" in key} == pytest.approx(expected, rel=1e-5)
    page = Path("run/report.md").read_text()
    assert "| 1 (commonest) |" in page
    assert "| 2–3 |" in page
    shares = report["model"]["describe"]["by_frequency"]["share"]
    assert shares == pytest.approx([len(by_decile.get(n, ())) / (len(tokens) - 1) for n in range(1, 11)])


def test_resumed_in_mid_epoch_to_the_bit(tiny: list[str]) -> None:
    """With dropout, an annealing, projected gradients and terms of the loss: all that has a state or draws numbers."""
    argv = ["--config", "wavegpt/full_physics.yaml", *tiny, "--model.dropout=0.2", "--model.embedding.anneal.steps=9"]
    argv += ["--model.optimizer.project.every=4", "--trainer.max_epochs=1", "--checkpoint.every_n_train_steps=3"]
    assert fit(*argv, "--trainer.max_steps=8", run="whole")["run"]["steps"] == 8
    shutil.copytree("whole", "cut")  # as if it had been killed after step 6
    for later in Path("cut/checkpoints").glob("step_00000008.*"):
        later.unlink()
    main()(["fit", "--resume=cut"])
    assert list(differences(state_of(Path("whole")), state_of(Path("cut")))) == []
    assert list(differences(figures_of(Path("whole")), figures_of(Path("cut")))) == []


def test_measured_again_it_is_the_same(tiny: list[str]) -> None:
    """Also in the midst of an annealing, whose ratio is the checkpoint's; and the test part under keys of its own."""
    argv = ["--config", "wavegpt/source_cosine.yaml", *tiny, "--model.embedding.anneal.steps=6"]
    logged = fit(*argv, "--model.optimizer.lr=0.01", "--trainer.max_steps=3")["run"]["metrics"]
    assert logged["anneal/ratio"]["last"] == pytest.approx(1 - 2 / 6)
    main()(["validate", "--resume=run"])
    again = json.loads(Path("run/report_validate.json").read_text())["run"]["metrics"]
    for key in ("val/bits_per_byte", "val/bits_per_byte_annealed"):
        assert again[key]["last"] == pytest.approx(logged[key]["last"], rel=1e-6)
    assert logged["val/bits_per_byte"]["last"] != logged["val/bits_per_byte_annealed"]["last"]
    main()(["test", "--resume=run"])
    tested = json.loads(Path("run/report_test.json").read_text())
    assert "test/bits_per_byte_annealed" in tested["run"]["metrics"]
    assert "bits per byte" in Path("run/report_test.md").read_text()


def test_it_writes(tiny: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    fit("--config", "wavegpt/wave.yaml", *tiny, "--trainer.max_steps=2")
    ask = ["predict", "--resume=run", "--prompt", "small dog", "--prompt", "the", "--model.writing.max_new_tokens=9"]
    capfd.readouterr()
    main()([*ask, "--model.writing.seed=3"])
    shown = capfd.readouterr().out
    rows = [json.loads(line) for line in Path("run/predictions.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == ["small dog", "the"]
    for row in rows:
        assert f"{row['prompt']}{row['text']}\n" in shown
        assert (row["settings"]["seed"], row["checkpoint"]) == (3, "step_00000002.ckpt")
    main()([*ask, "--model.writing.seed=3"])
    assert [json.loads(line) for line in Path("run/predictions.jsonl").read_text().splitlines()] == rows
    main()([*ask, "--model.writing.top_k=1"])
    greedy = [json.loads(line)["text"] for line in Path("run/predictions.jsonl").read_text().splitlines()]
    main()([*ask, "--model.writing.temperature=0"])
    assert [json.loads(line)["text"] for line in Path("run/predictions.jsonl").read_text().splitlines()] == greedy


def test_what_is_piped_in_is_gone_on_with(tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fit("--config", "wavegpt/pure_wave_linear.yaml", *tiny, "--trainer.max_steps=1")
    monkeypatch.setattr("sys.stdin", io.StringIO("small dog\n\nthe\n"))
    main()(["predict", "--resume=run", "--data.prompts=-", "--model.writing.max_new_tokens=4"])
    rows = [json.loads(line) for line in Path("run/predictions.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == ["small dog", "the"]


def test_a_dry_run_says_what_is_done(tiny: list[str], capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Before the text is prepared all but its steps, and it writes nothing."""
    argv = ["fit", "--config", "wavegpt/wave.yaml", *tiny, "--trainer.max_epochs=1", "--trainer.max_steps=-1"]
    argv += ["--data.seed=77"]  # a split that no other test has prepared
    cache = Path(os.environ["MODULANT_CACHE"], "text")
    kept = set(cache.glob("*")) if cache.is_dir() else set()
    capfd.readouterr()
    main()([*argv, "--dry-run=json"])
    before = json.loads(capfd.readouterr().out)
    assert (set(cache.glob("*")), list(tmp_path.iterdir())) == (kept, [])
    assert (before["text"]["prepared"], "training" in before) == (False, False)
    main()([*argv, "--output=run", "--report.figures=false", "--trainer.limit_val_batches=1"])
    capfd.readouterr()
    main()([*argv, "--dry-run=json"])
    facts = json.loads(capfd.readouterr().out)
    report = json.loads(Path("run/report.json").read_text())
    assert facts["training"]["steps"] == report["run"]["steps"]
    assert facts["arm"]["trained_parameters"] == report["model"]["parameters"]["trainable"]
    assert before["arm"]["vocabulary"] == report["model"]["describe"]["vocab_size"]
    assert facts["arm"]["parameters"] == report["model"]["describe"]["parameters"]
    main()([*argv, "--dry-run"])
    assert "embedding wave, attention interference" in capfd.readouterr().out


def test_a_diverged_run_ends_in_one_line(tiny: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    argv = ["fit", "--config", "wavegpt/baseline.yaml", *tiny, "--trainer.max_steps=9", "--report.figures=false"]
    with pytest.raises(SystemExit) as ended:
        main()([*argv, "--model.optimizer.lr=1e30", "--model.warmup_steps=0", "--output=run"])
    assert ended.value.code == 1
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    assert "the gradient's norm is nan" in line


@pytest.mark.slow  # starts two processes
def test_two_processes_are_one(tiny: list[str], tmp_path: Path) -> None:
    argv = ["--config", "wavegpt/full_physics.yaml", *tiny, "--trainer.max_epochs=1", "--report.figures=false"]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_tokens=64"]
    done = process("fit", *argv, *two, "--output=two", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    one = fit(*argv, run="one")
    other = json.loads(Path("two/report.json").read_text())
    assert other["run"]["steps"] == one["run"]["steps"]
    for key in ("val/bits_per_byte", "train/loss", "train/task", "train/phase"):
        assert other["run"]["metrics"][key]["last"] == pytest.approx(one["run"]["metrics"][key]["last"], rel=1e-4), key
    weights, others = load("one/wavegpt").state_dict(), load("two/wavegpt").state_dict()
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, rtol=1e-3, atol=1e-4)
