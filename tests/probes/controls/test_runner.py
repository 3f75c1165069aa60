"""Processes side by side: small ones in the place of trainings, for what happens when they end, fail or are stopped."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from probes.controls.plan import Run, lock
from probes.controls.runner import Job, Runner, Stop, train, unfinished
from probes.controls.settings import Control

# Sleeps until Ctrl-C, and then saves.
SAVES = (
    "import pathlib, signal, sys, time\n"
    "try:\n    print('ready', flush=True)\n    time.sleep(60)\n"
    "except KeyboardInterrupt:\n    time.sleep(0.3); pathlib.Path(sys.argv[1]).touch(); sys.exit(130)"
)
STUBBORN = (
    "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(60)"
)


def run(tmp_path: Path, name: str, seed: int = 0) -> Run:
    return Run(Control(name), seed, tmp_path / name / f"seed_{seed}")


def work(
    tmp_path: Path,
    runs: list[Run],
    command: Callable[[Run], list[str] | None],
    jobs: int = 2,
    look: Callable[[Runner, Stop], None] = lambda runner, stop: None,
) -> tuple[dict[str, int], list[Run], list[int]]:
    """Exit codes by name, what never began, and how many ran at each look."""
    codes: dict[str, int] = {}
    at_once: list[int] = []

    def ended(job: Job, code: int) -> None:
        codes[job.run.name] = code

    slots = [{"SLOT": str(i)} for i in range(jobs)]
    with lock(tmp_path / "out") as held, Stop() as stop:
        runner = Runner(slots, held.fileno(), stop)

        def see(_: Runner) -> None:
            at_once.append(len(runner.running))
            look(runner, stop)

        never = runner.work(runs, command, lambda job: None, ended, see)
    return codes, never, at_once


def python(code: str, *words: str) -> list[str]:
    return [sys.executable, "-c", code, *words]


def test_all_run_no_more_than_jobs_at_once(tmp_path: Path) -> None:
    runs = [run(tmp_path, "a", seed) for seed in range(5)]
    code = "import os, time; print('slot', os.environ['SLOT']); time.sleep(0.3)"
    codes, never, at_once = work(tmp_path, runs, lambda _: python(code))
    assert codes == {f"a seed {seed}": 0 for seed in range(5)}
    assert never == []
    assert max(at_once) == 2
    assert runs[0].log.read_text().splitlines()[1:] == ["slot 0"]
    assert runs[1].log.read_text().splitlines()[1:] == ["slot 1"]


def test_one_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    runs = [run(tmp_path, name) for name in ("good", "bad", "last")]
    codes, _, _ = work(tmp_path, runs, lambda r: python(f"import sys; sys.exit({3 if r.control.name == 'bad' else 0})"))
    assert codes == {"good seed 0": 0, "bad seed 0": 3, "last seed 0": 0}


def test_one_that_waits_begins_when_it_can(tmp_path: Path) -> None:
    first, second, hopeless = (run(tmp_path, name) for name in ("first", "second", "hopeless"))
    done = tmp_path / "done"

    def command(one: Run) -> list[str] | None:
        if one is first:
            return python(f"open({str(done)!r}, 'w')")
        return python("") if one is second and done.exists() else None

    codes, never, _ = work(tmp_path, [second, hopeless, first], command)
    assert list(codes) == ["first seed 0", "second seed 0"]
    assert never == [hopeless]


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_what_runs_save_and_begins_nothing(tmp_path: Path, number: signal.Signals) -> None:
    runs = [run(tmp_path, "a", seed) for seed in range(4)]
    sent = []

    def look(_: Runner, stop: Stop) -> None:
        if not sent and all(one.log.is_file() and "ready" in one.log.read_text().split() for one in runs[:2]):
            sent.append(os.kill(os.getpid(), number))
            assert stop.signal == number

    codes, never, _ = work(tmp_path, runs, lambda r: python(SAVES, str(tmp_path / f"saved_{r.seed}")), look=look)
    assert codes == {"a seed 0": 130, "a seed 1": 130}
    assert never == runs[2:]
    assert {path.name for path in tmp_path.glob("saved_*")} == {"saved_0", "saved_1"}


def test_a_job_in_the_background_is_ended_by_sigterm_alone(tmp_path: Path) -> None:
    """A shell starts it with SIGINT ignored, nohup with SIGHUP; its runs are still ended by SIGINT, saved."""
    ignored = (signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in ignored]
    one = run(tmp_path, "a")
    sent = []

    def look(_: Runner, stop: Stop) -> None:
        if not sent and one.log.is_file() and "ready" in one.log.read_text().split():
            for number in ignored:
                os.kill(os.getpid(), number)
            assert stop.signal is None
            sent.append(os.kill(os.getpid(), signal.SIGTERM))

    try:
        codes, _, _ = work(tmp_path, [one], lambda _: python(SAVES, str(tmp_path / "saved")), look=look)
        assert [signal.getsignal(number) for number in ignored] == [signal.SIG_IGN] * 2
    finally:
        for number, handler in zip(ignored, before, strict=True):
            signal.signal(number, handler)
    assert codes == {"a seed 0": 130}
    assert (tmp_path / "saved").exists()


@pytest.mark.usefixtures("interruptible")
def test_a_second_signal_waits_for_nobody(tmp_path: Path) -> None:
    one = run(tmp_path, "stubborn")
    sent: list[float] = []

    def look(_: Runner, stop: Stop) -> None:
        ready = one.log.is_file() and "ready" in one.log.read_text().split()
        if ready and (not sent or (len(sent) == 1 and time.monotonic() - sent[0] > 0.5)):
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    codes, _, _ = work(tmp_path, [one], lambda _: python(STUBBORN), look=look)
    assert codes == {"stubborn seed 0": -signal.SIGKILL}
    assert len(sent) == 2


def test_an_error_of_ours_leaves_no_process(tmp_path: Path) -> None:
    jobs: list[Job] = []

    def look(runner: Runner, _: Stop) -> None:
        jobs.extend(runner.running)
        raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        work(tmp_path, [run(tmp_path, "a")], lambda _: python("import time; time.sleep(60)"), look=look)
    assert jobs[0].process.wait(10) == -signal.SIGKILL


def test_the_folder_stays_locked_while_a_run_lives(tmp_path: Path) -> None:
    with lock(tmp_path / "out") as held, Stop() as stop:
        runner = Runner([{}], held.fileno(), stop)
        child = runner._start(python("import time; time.sleep(60)"), run(tmp_path, "a"), 0)
    try:
        with pytest.raises(ValueError, match="or a run that it has left, is at work"):
            lock(tmp_path / "out")
    finally:
        child.kill()
        child.wait()
    lock(tmp_path / "out").close()


def test_what_is_told_of_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, hopeless, waiting = (run(tmp_path, name) for name in ("good", "bad", "hopeless", "waiting"))
    given_up = []

    def command(one: Run) -> list[str] | None:
        if one is bad:
            return python("import sys; sys.exit('error: no such key')")
        return None if one is waiting else python(SAVES, str(tmp_path / "saved")) if one is hopeless else python("")

    def outcome(one: Run, code: int, stopping: bool) -> tuple[bool, str]:
        assert not stopping
        return (False, unfinished(one, code, stopping)) if one is bad else (True, f"exit code {code}")

    def give_up(one: Run) -> bool:
        ready = one is hopeless and not given_up and one.log.is_file() and "ready" in one.log.read_text().split()
        return ready and given_up.append(one) is None

    with lock(tmp_path / "out") as held:
        code, never = train(
            [good, bad, hopeless, waiting], 6, [{"OMP_NUM_THREADS": "1"}] * 2, held.fileno(), command, outcome, {},
            lambda one: " with lr 0.1", give_up,
        )  # fmt: skip
    assert (code, never) == (1, [waiting])
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == f"4 of 6 runs to do, 2 side by side with 1 thread(s) each, into {tmp_path}"
    assert f"good seed 0 starts with lr 0.1; {good.log}" in lines
    assert "good seed 0: exit code 0" in lines
    assert "hopeless seed 0: exit code 130" in lines
    assert err == f"bad seed 0: failed (no such key); {bad.log}\n"
    assert err.strip() in lines
