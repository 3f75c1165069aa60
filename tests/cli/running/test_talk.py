"""Talking to a run: by options, a file, a pipe, and at a terminal; over a sweep of α; drawn again the same."""

import importlib.util
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.runs import ROOT, small_wordnet, tiny_backbone

TALK = ["--config", "talk.yaml"]
READLINE = importlib.util.find_spec("readline") is not None  # a Python may be built without it


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of two steps, saved as a user's would be."""
    folder = tmp_path_factory.mktemp("talk")
    wordnet, backbone = small_wordnet(folder / "nltk_data"), tiny_backbone(folder / "t5")
    # fmt: off
    argv = [
        "fit", "--config", "lerp.yaml", "--model.backbone", backbone, "--data.nltk_data", str(wordnet),
        "--report.figures=false", "--relational.baselines=false", "--relational.bootstrap=0",
        "--model.modulator.n_geometric_dims", "8", "--model.modulator.initial_alpha", "0.4", "--model.lr", "0.1",
        "--trainer.max_steps", "2", "--output", str(folder / "run"),
    ]
    # fmt: on
    from tests.runs import main

    main()(argv)
    return str(folder / "run")


def rows(run: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (Path(run) / "predictions.jsonl").read_text().splitlines()]


def trained(run: str) -> dict[str, bytes]:
    """What the training left."""
    kept = [path for path in Path(run).rglob("*") if path.is_file() and "predict" not in path.name]
    return {str(path): path.read_bytes() for path in kept}


def test_options_over_a_sweep(call: Call, run: str) -> None:
    before = trained(run)
    sweep = ["--talk.alpha_scales", "[0, 0.5, 1, 2]", "--talk.next_tokens", "2"]
    said = call("predict", "--resume", run, *TALK, "--prompt", "a: [small] 'dog'", "--prompt", "a cat", *sweep)
    assert (said.code, said.err) == (0, "")
    assert "\x1b" not in said.out
    lines = said.out.splitlines()
    assert lines[0] == f"resuming from {run}/checkpoints/step_00000002.ckpt"  # how it is asked is no change of the run
    assert [line for line in lines if not line.startswith(" ")][1:3] == ["a: [small] 'dog'", "a cat"]
    assert [line.split("  ")[1] for line in lines if line.startswith("  α")] == ["α × 0", "α × 0.5", "α × 2"] * 2
    found = rows(run)
    assert [(row["prompt"], row["alpha_scale"]) for row in found] == [
        (prompt, scale) for prompt in ("a: [small] 'dog'", "a cat") for scale in (0, 0.5, 1, 2)
    ]
    for row in found:
        assert row["checkpoint"] == "step_00000002.ckpt"
        if row["alpha_scale"] == 0:
            for what in ("", "_tokens", "_logprobs", "_next"):
                assert row[f"modulated{what}"] == row[f"original{what}"]
    assert any(row["modulated_logprobs"] != row["original_logprobs"] for row in found)
    assert trained(run) == before


def test_an_untrained_modulator_is_called_that(call: Call, run: str, tmp_path: Path) -> None:
    """Without --resume the modulator is as it was initialised."""
    folder = Path(run).parent
    of_run = ["--model.backbone", str(folder / "t5"), "--data.nltk_data", str(folder / "nltk_data")]
    of_run += ["--model.modulator.n_geometric_dims", "8"]
    ask = [*TALK, "--prompt", "a cat", "--talk.alpha_scales", "[1, 2]", "--output", str(tmp_path / "asked")]
    said = call("predict", "--config", "lerp.yaml", *of_run, *ask)
    assert (said.code, said.err) == (0, "")
    names = [line[2:].split("  ")[0] for line in said.out.splitlines() if re.match("  [ou]", line)]
    assert names == ["original", "untrained modulator", "untrained modulator, α × 2"]
    assert " of them the same with and without the untrained modulator: " in said.out
    assert [row["checkpoint"] for row in rows(str(tmp_path / "asked"))] == [None, None]


def test_draws_are_the_same_again(call: Call, run: str) -> None:
    drawn = ["--prompt", "a cat", "--talk.temperature", "1.2", "--talk.top_p=0.9", "--talk.samples", "3"]
    assert call("predict", "--resume", run, *TALK, *drawn).code == 0
    first = rows(run)
    assert [row["sample"] for row in first] == [0, 1, 2]
    assert call("predict", "--resume", run, *TALK, *drawn).code == 0
    assert rows(run) == first
    assert call("predict", "--resume", run, *TALK, *drawn, "--talk.seed", "7").code == 0
    assert [row["original"] for row in rows(run)] != [row["original"] for row in first]


def test_what_is_piped(call: Call, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a cat\n\n  a dog  \n"))
    said = call("predict", "--resume", run, *TALK)
    assert (said.code, said.err) == (0, "")
    assert [row["prompt"] for row in rows(run)] == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "data.prompts: no prompt, and no terminal to type one at; give --prompt TEXT"),
        (["--talk.temperature", "-1", "--prompt", "x"], "talk.temperature is -1; it must be a number of at least 0"),
        (["--talk.alpha_scales", "[]", "--prompt", "x"], "talk: alpha_scales is empty"),
        (["--talk.samples", "2", "--prompt", "x"], "greedy answers are all equal"),
        (["--talk.top_q", "1"], "--talk.top_q is not a key; did you mean talk.top_p?"),
        (["--prompt"], "--prompt: a value is missing"),
    ],
)
def test_one_line_before_anything_is_loaded(
    call: Call, run: str, monkeypatch: pytest.MonkeyPatch, argv: list[str], line: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    said = call("predict", "--resume", run, *TALK, *argv)
    assert said.code == 1
    assert line in said.err
    assert said.err.count("\n") == 1


def test_only_predict_asks(call: Call) -> None:
    assert "--prompt: fit asks nothing" in call("fit", "--config", "field.yaml", "--prompt", "x").err


class Terminal:
    """A process at a terminal of its own."""

    def __init__(self, argv: list[str], cwd: Path, **environment: str) -> None:
        self.master, end = pty.openpty()
        environment = {"TERM": "xterm-256color", "COLUMNS": "100"} | environment
        kept = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        self.process = subprocess.Popen(
            argv, cwd=cwd, env=kept | environment, stdin=end, stdout=end, stderr=end, start_new_session=True,
            preexec_fn=_control,
        )  # fmt: skip
        os.close(end)
        self.said = ""

    def until(self, text: str, seconds: float = 120) -> str:
        """What it says until `text` has come."""
        start, ends = len(self.said), time.monotonic() + seconds
        while text not in self.said[start:]:
            assert time.monotonic() < ends, self.said
            if select.select([self.master], [], [], 0.5)[0]:
                try:
                    self.said += os.read(self.master, 4096).decode(errors="replace")
                except OSError:  # it has ended
                    break
        return self.said[start:]

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def code(self) -> int:
        try:
            return self.process.wait(60)
        finally:
            os.close(self.master)


def _control() -> None:
    """The terminal becomes the process's own, so that Ctrl-C in it is a signal."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    "ending", [pytest.param("\x04", id="Ctrl-D", marks=pytest.mark.slow), pytest.param("\x03", id="Ctrl-C")]
)
def test_at_a_terminal(run: str, tmp_path: Path, ending: str) -> None:
    """A prompt sign, an answer in colour, an arrow key that brings the last prompt back, and a clean end."""
    argv = [sys.executable, str(ROOT / "train.py"), "predict", "--resume", run, *TALK, "--talk.alpha_scales=[50]"]
    terminal = Terminal(argv, tmp_path)
    terminal.until("> ")
    terminal.type("a small dog\n")
    answer = terminal.until("> ")
    assert "original" in answer
    assert "\x1b[" in answer
    terminal.type("\x1b[A\n" if READLINE else "a small dog\n")  # arrow up
    terminal.until("original")
    terminal.until("> ")
    terminal.type(ending)
    terminal.until("predictions.jsonl")
    assert terminal.code() == 0
    assert "Predicting" not in terminal.said  # Lightning's bar, which would be redrawn over what is typed
    assert [row["prompt"] for row in rows(run)] == ["a small dog", "a small dog"]


@pytest.mark.slow
def test_a_terminal_without_colours(run: str, tmp_path: Path) -> None:
    argv = [sys.executable, str(ROOT / "train.py"), "predict", "--resume", run, *TALK, "--prompt", "a small dog"]
    terminal = Terminal(argv, tmp_path, NO_COLOR="1")
    terminal.until("predictions.jsonl")
    assert terminal.code() == 0
    page = terminal.said[terminal.said.index("a small dog") :]
    assert "\x1b[1m" not in page
    assert "\x1b[3" not in page
