"""What a command shows while it runs, on a terminal and in a log."""

import io
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from probes.controls.plan import Run, lock
from probes.controls.progress import Display, fraction
from probes.controls.runner import Job, Runner, Stop
from probes.controls.settings import Control

TRAINER = {"max_epochs": 4, "max_steps": -1}
# Writes what a training of four epochs would, two steps an epoch.
TRAINS = (
    "import pathlib, sys, time\n"
    "folder = pathlib.Path(sys.argv[1]); folder.mkdir(parents=True)\n"
    "with (folder / 'metrics.csv').open('w', buffering=1) as file:\n"
    "    print('step,epoch,loss', file=file)\n"
    "    for step in range(8):\n"
    "        print(f'{step},{step // 2},1.0', file=file); time.sleep(0.1)"
)


def shown(tmp_path: Path, terminal: bool) -> str:
    """All that was written while two runs went by."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100)
    runs = [Run(Control(name), 0, tmp_path / name / "seed_0") for name in ("lerp", "lora")]
    display = Display(runs, 3, TRAINER, console)

    def started(job: Job) -> None:
        display.started(job.run)

    def ended(job: Job, code: int) -> None:
        assert code == 0
        display.ended(job.run, True, f"{job.run.name}: lift +0.01")

    def look(runner: Runner) -> None:
        display.look([job.run for job in runner.running], False)

    with lock(tmp_path / "out") as held, Stop() as stop, display:
        runner = Runner([{}], held.fileno(), stop)
        runner.work(runs, lambda run: [sys.executable, "-c", TRAINS, str(run.folder)], started, ended, look)
    return stream.getvalue()


def test_a_log_gets_plain_lines(tmp_path: Path) -> None:
    lines = shown(tmp_path, terminal=False).splitlines()
    assert lines[0] == f"lerp seed 0 starts; {tmp_path}/lerp/seed_0.log"
    assert lines[1] == "lerp seed 0: lift +0.01"
    assert lines[2] == f"lora seed 0 starts; {tmp_path}/lora/seed_0.log"
    assert re.fullmatch(r"2 of 3 runs, \d s, about \d s left; running: lora seed 0 \(starting\)", lines[3])
    assert lines[-1] == "lora seed 0: lift +0.01"
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_bars(tmp_path: Path) -> None:
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown(tmp_path, terminal=True))
    assert "━" in text
    assert "lerp seed 0: lift +0.01" in text
    assert re.search(r"  lora seed 0 [━╸╺]+ +epoch [234]/4, step \d", text)
    assert re.search(r"runs +[━╸╺]+ +2 of 3 runs, \d s, about \d s left", text)
    assert re.search(r"runs +━+ +3 of 3 runs, \d s *$", text)


def test_a_run_has_the_budget_that_its_control_decides(tmp_path: Path) -> None:
    control = Control("epochs_8", decides={"trainer.max_epochs": 8})
    runs = [Run(one, 0, tmp_path / one.name / "seed_0") for one in (Control("lerp"), control)]
    stream = io.StringIO()
    display = Display(runs, 2, TRAINER, Console(file=stream, width=200))
    for run in runs:
        run.folder.mkdir(parents=True)
        (run.folder / "metrics.csv").write_text("step,epoch,loss\n3,2,1.0\n")
        display.started(run)
    display._last = float("-inf")
    display.look(runs, False)
    assert "lerp seed 0 (epoch 3/4, step 4), epochs_8 seed 0 (epoch 3/8, step 4)" in stream.getvalue()
    assert display.remaining(60.0) == pytest.approx(60 * (2 - 0.75) / 0.75)  # a half and a quarter are done


@pytest.mark.parametrize(
    ("at", "trainer", "expected"),
    [
        (None, TRAINER, 0.0),
        ((2, 100), TRAINER, 0.5),
        ((2, 100), {"max_epochs": -1, "max_steps": 400}, 0.25),
        ((2, 100), {"max_epochs": None, "max_steps": -1}, 0.0),
        ((9, 100), TRAINER, 1.0),
    ],
)
def test_how_much_is_done(at: tuple[int, int] | None, trainer: dict[str, int], expected: float) -> None:
    assert fraction(at, trainer) == pytest.approx(expected)
