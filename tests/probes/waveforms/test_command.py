"""probe.py waveforms: a run with everything, a control of which little applies, drawing again, a film, bad input."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import probe
from datamodules.text.tokenizer import TextTokenizer
from modulant.reports.run.folder import finite
from probes.waveforms import command, film
from probes.waveforms.subject import open_subject, shown
from tests.runs import main
from wavegpt import AttentionConfig, EmbeddingConfig, Sampling, WaveConfig, WaveGPT, generate, load, save

CONTEXT, TOKENS = 48, 3
WORDS = "small large dog cat house tree river stone bird cloud a the of in and is red green old new walks sees".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text, and a run on it of a model that learns everything that a model can."""
    folder = tmp_path_factory.mktemp("waveforms")
    rng = np.random.default_rng(7)
    documents = {" ".join(rng.choice(WORDS, int(rng.integers(8, 30)))) for _ in range(200)}
    (folder / "text.txt").write_text("\n\n".join(sorted(documents)), encoding="utf-8")
    options = {
        "data.corpus": folder / "text.txt", "data.vocab_size": 270, "data.context": CONTEXT, "data.batch_tokens": 192,
        "data.val_fraction": 0.1, "model.d_model": 16, "model.heads": 2, "model.embedding.mass": "learned",
        "model.embedding.position": "phase", "model.embedding.anneal.steps": 2, "model.attention.phase": "integrated",
        "trainer.max_steps": 4, "trainer.accelerator": "cpu", "trainer.val_check_interval": 2,
        "trainer.log_every_n_steps": 1, "report.figures": "false", "output": folder / "run",
    }  # fmt: skip
    main()(["fit", "--config", "wavegpt/wave.yaml", *(f"--{key}={value}" for key, value in options.items())])
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    words = ["waveforms", str(folder / "run"), "--texts", str(folder / "text.txt"), "--prompt", "a small dog"]
    assert probe.main([*words, "--animate", "gif", f"--tokens={TOKENS}", "--output", str(folder / "out")]) == 0
    return folder / "out"


def figures_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "report.json").read_text())["figures"])


def test_every_part_has_figures_with_nulls(report: Path) -> None:
    found = json.loads((report / "report.json").read_text())
    figures, nulls = found["figures"], found["nulls"]
    for name in (
        "harmonics/position/embedded/p", "harmonics/position/layer_01/p", "harmonics/tau/commonest/p",
        "fringes/layer_00/head_00/p", "fringes/layer_01/head_01/period", "baseline/fringes/layer_01/head_01/p",
        "untrained/fringes/layer_00/head_00/p", "stability/exponent", "stability/exponent_low", "usage/key_share",
        "usage/omega/shift", "usage/position_omega/shift", "usage/layer_01/omega_shift", "usage/phase/length",
        "usage/harmonics/divergence", "usage/layer_00/head_01/temperature", "usage/state/participation_ratio",
    ):  # fmt: skip
        assert figures[name] is not None, name
    for name in ("stability/exponent", "usage/key_share", "usage/state/participation_ratio"):
        assert nulls[name]["what"] == "the same model untrained"
    assert figures["stability/exponent_low"] <= figures["stability/exponent"] <= figures["stability/exponent_high"]
    assert figures["usage/cross_share"] + figures["usage/key_share"] == pytest.approx(1)
    assert figures["harmonics/tau/commonest/p"] < 0.05  # where harmonics are by construction
    assert found["reasons"] == {}
    page = (report / "report.md").read_text()
    for line in ("**Harmonics along positions**", "**Fringes**", "**Stability**", "**Logits**"):
        assert f"- {line}:" in page


def test_untrained_is_the_start_of_the_run(folder: Path) -> None:
    """By the run's seed, and with its table of the annealing, which the exported model lacks."""
    start = open_subject(str(folder / "run")).untrained()
    state = torch.load(next((folder / "run" / "checkpoints").glob("*.ckpt")), weights_only=False)["state_dict"]
    assert set(state) == {f"model.{name}" for name in start.state_dict()}
    moved = (state["model.embedding.phase"] - start.state_dict()["embedding.phase"]).abs().max()
    assert 0 < float(moved) < 0.05  # four steps
    for name in ("blocks.1.attention.value.weight", "embedding.table.weight"):
        now, before = state[f"model.{name}"].flatten(), start.state_dict()[name].flatten()
        assert float(torch.corrcoef(torch.stack([now, before]))[0, 1]) > 0.8


def test_charts_are_drawn_again_without_the_model(folder: Path, report: Path) -> None:
    again = folder / "again"
    assert probe.main(["waveforms", "--redraw", str(report), "--output", str(again)]) == 0
    names = {path.relative_to(report) for path in report.rglob("*") if path.is_file()} - {Path("animation.gif")}
    assert {path.relative_to(again) for path in again.rglob("*") if path.is_file()} == names
    drawn = {path.stem for path in (again / "figures").iterdir()}
    assert drawn == {
        "learning", "omega", "phase", "phase_histogram", "phase_circle", "harmonic_amplitudes", "packets",
        "interference", "by_lag", "attention", "fringes", "temperature", "growth", "spectrum", "anneal",
    }  # fmt: skip
    for path in (*(report / "figures").iterdir(), report / "report.html", report / "tensors.npz"):
        assert (again / path.relative_to(report)).read_bytes() == path.read_bytes() or path.suffix == ".npz"


def test_packets_are_drawn_beyond_nyquists_limit(report: Path) -> None:
    found = json.loads((report / "report.json").read_text())
    with np.load(report / "tensors.npz") as arrays:
        assert float(np.diff(arrays["packet_times"]).max()) < found["shown"]["packet_limit"] / 1.9
    assert [about["text"] != "" for about in found["shown"]["packets"].values()] == [True] * 3


def test_a_film_shows_what_is_generated(folder: Path, report: Path) -> None:
    with Image.open(report / "animation.gif") as film_:
        assert (film_.n_frames, film_.size) == (TOKENS, (1280, 720))
    trace = json.loads((report / "animation.json").read_text())
    subject = open_subject(str(folder / "run"))
    prompt = [subject.tokenizer.end, *map(int, subject.tokenizer.encode("a small dog"))]
    sampling = Sampling(temperature=trace["temperature"], seed=trace["seed"])
    tokens = [int(token) for token in generate(subject.model, [prompt], TOKENS, sampling)]
    assert trace["prompt"] == prompt
    assert [step["token"] for step in trace["steps"]] == tokens
    assert {trace["texts"][str(i)] for i in tokens} == {shown(subject.tokenizer, i) for i in tokens}


def test_an_mp4_is_written_where_there_is_an_ffmpeg(
    folder: Path, report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = film._ffmpeg()
    if program is None:
        assert probe.main(["waveforms", "--redraw", str(report), "--animate", "mp4"]) == 2
        assert "there is no ffmpeg; install the extra `animation`" in capsys.readouterr().err
        return
    trace = json.loads((report / "animation.json").read_text())
    path = film.write(trace, folder, "mp4")
    words = [program, "-loglevel", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = subprocess.run(words, capture_output=True, check=True).stdout
    assert len(decoded) / (1280 * 720 * 3) == pytest.approx(TOKENS * 10 / film.PER_SECOND, abs=1)


def test_frames_are_written_alone_and_old_ones_go(tmp_path: Path, report: Path) -> None:
    trace = json.loads((report / "animation.json").read_text())
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "frame_099.png").touch()
    film.write({**trace, "steps": trace["steps"][:2]}, tmp_path, "png")
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == ["frame_000.png", "frame_001.png"]


def saved(folder: Path, tokenizer: TextTokenizer, config: WaveConfig) -> str:
    torch.manual_seed(3)
    model = WaveGPT(config, torch.from_numpy(tokenizer.ranks))
    save(model, folder)
    tokenizer.save(folder)
    return str(folder)


@pytest.mark.parametrize(
    "about",
    [
        {"embedding": EmbeddingConfig(kind="table"), "attention": AttentionConfig(kind="rope")},
        {"embedding": EmbeddingConfig(waves=4, harmonics=2, amplitude="fixed"),
         "attention": AttentionConfig(kind="pure_wave", where="feature")},
    ],
    ids=["table", "pure_wave"],
)  # fmt: skip
def test_a_control_has_what_applies_and_a_reason_for_the_rest(
    about: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    tokenizer = TextTokenizer.load(folder / "run" / "wavegpt")
    config = WaveConfig(vocab_size=tokenizer.vocab_size, d_model=16, layers=1, heads=2, context=CONTEXT, **about)
    name = saved(tmp_path / "model", tokenizer, config)
    parser = probe.Parser()
    command.add_arguments(parser)
    words = [name, "--texts", str(folder / "text.txt"), "--baseline", str(folder / "run"), "--animate", "png"]
    found, arrays, trace = command.measure(parser.parse_args([*words, "--tokens=2"]))
    figures, reasons = finite(found["figures"]), found["reasons"]
    assert figures["fringes/layer_00/head_00/p"] is not None
    assert figures["baseline/fringes/layer_01/head_01/p"] is not None  # of its own two layers
    assert figures["stability/exponent"] is not None
    assert {"usage/key_share", "usage/omega", "harmonics/tau"} <= reasons.keys()
    assert ("phase" in arrays) == (config.embedding.kind == "wave")
    assert trace is not None
    assert trace["steps"][0]["key"] is None
    frames = list(film.frames(trace))
    assert len(frames) == 2
    assert not np.array_equal(*frames)
    from probes.waveforms import charts, page

    assert page.content(found)["sections"]["Fringes"]
    names = {chart.name for chart in charts.charts(found, arrays)}
    assert ("omega" in names) == (config.embedding.kind == "wave")
    assert {"learning", "anneal", "harmonic_amplitudes"}.isdisjoint(names)


def test_tokens_are_text_in_one_line(folder: Path) -> None:
    tokenizer = TextTokenizer.of_bytes()
    assert [shown(tokenizer, i) for i in (32, 10, 9, 0, 97, 200, 256)] == ["␣", "⏎", "⇥", "·", "a", "c8", "[end]"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "RUN_OR_FOLDER is missing"),
        (["{empty}"], "is no wave model; name a run of WaveLM that has ended"),
        (["{empty}/none"], "is no folder; name a run of WaveLM"),
        (["{run}", "--baseline", "{empty}"], "--baseline: {empty} is no wave model"),
        (["{run}", "--layer", "2"], "--layer: 2; the model has 2, so it must be 0 … 1"),
        (["{run}", "--prompt", ""], "--prompt is empty"),
        (["{run}", "--texts", "{short}"], "tokens, and a window of the model has 48; give a longer text"),
        (["{run}", "--animate", "avi"], "invalid choice: 'avi'"),
        (["--redraw", "{empty}"], "report.json cannot be read"),
        (["{run}", "--redraw", "{empty}"], "name no model beside it"),
        (["{bare}"], "holds no tokenizer.json"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], said: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {name: str(tmp_path / name) for name in ("empty", "short", "bare")} | {"run": str(folder / "run")}
    Path(places["empty"]).mkdir()
    Path(places["short"]).write_text("a small dog")
    shutil.copytree(folder / "run" / "wavegpt", places["bare"])
    Path(places["bare"], "tokenizer.json").unlink()
    assert probe.main(["waveforms", *(word.format(**places) for word in words)]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert said.format(**places) in errors


def test_the_model_is_read_as_it_is(folder: Path) -> None:
    """A name of the run and of the model in it are the same."""
    run, model = (open_subject(str(folder / name)) for name in ("run", "run/wavegpt"))
    assert run.seed == model.seed
    assert run.metrics == model.metrics
    assert run.metrics
    assert run.tokens_per_step == 192
    assert load(folder / "run" / "wavegpt").config == model.model.config
