"""Signals are recorded while the main thread is busy, and a signalled process ends."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from callbacks.stopping import signals
from callbacks.stopping.signals import Signals, Stopped, current, describe, exit_code

pytestmark = pytest.mark.usefixtures("interruptible")


def later(number: int, seconds: float = 0.05) -> None:
    threading.Timer(seconds, os.kill, (os.getpid(), number)).start()


def recorded(watched: Signals, seconds: float = 5) -> int | None:
    until = time.monotonic() + seconds
    while watched.number is None and time.monotonic() < until:
        time.sleep(0.01)
    return watched.number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_only_recorded_once_a_run_has_started(number: int) -> None:
    before = signal.getsignal(number)
    with Signals().watching() as watched:
        assert current() is watched
        watched.defer()
        os.kill(os.getpid(), number)
        assert recorded(watched) == number
    assert current() is None
    assert signal.getsignal(number) is before


def test_a_signal_ends_a_wait_for_input() -> None:
    with Signals().watching() as watched:
        watched.defer()
        with pytest.raises(KeyboardInterrupt), watched.immediate():
            signal.raise_signal(signal.SIGINT)
        assert watched.number is None
        with pytest.raises(Stopped) as caught, watched.immediate():
            signal.raise_signal(signal.SIGTERM)
    assert caught.value.number == signal.SIGTERM


def test_the_main_thread_may_be_busy() -> None:
    """In C, where no handler of Python's runs: the wake-up pipe reaches the thread."""
    with Signals(alone=False).watching() as watched:
        seen: list[int | None] = []
        threading.Timer(0.5, lambda: seen.append(watched.number)).start()
        later(signal.SIGTERM)
        pow(7, 10**7 * 3, 10**4000 + 1)  # holds the interpreter for a while
        time.sleep(0.6)
        assert recorded(watched) == signal.SIGTERM
        assert len(seen) == 1


def in_child(action: object) -> int:
    """Exit code of a forked process in which a function ran."""
    pid = os.fork()
    if pid == 0:
        try:
            action()  # type: ignore[operator]
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_before_a_run_has_started_it_exits_even_in_a_finaliser(
    number: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Python drops an exception that is raised in a finaliser: the process would run on."""

    class Finalised:
        def __del__(self) -> None:
            signal.raise_signal(number)

    def start() -> None:
        with Signals(last_line=lambda number: f"{describe(number)}; nothing was started").watching() as watched:
            watched.clean_up = (tmp_path / "left").rmdir
            (tmp_path / "left").mkdir()
            Finalised()
            (tmp_path / "ran on").touch()

    assert in_child(start) == exit_code(number)
    assert capfd.readouterr().err == f"{describe(number)}; nothing was started\n"
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_does_not_stop_is_exited(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signals, "GRACE", 0.3)

    def hang() -> None:
        with Signals(alone=False).watching():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)

    assert in_child(hang) == 143
    assert capfd.readouterr().err.startswith("terminated; the run did not end by itself within 0 seconds")


def test_ctrl_c_twice_does_not_wait(capfd: pytest.CaptureFixture[str]) -> None:
    def hang() -> None:
        with Signals(alone=False).watching():
            for seconds in (0.0, 1.5):
                time.sleep(seconds)
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(20)

    assert in_child(hang) == 130
    assert "interrupted twice" in capfd.readouterr().err


def test_ending_a_worker_ends_nothing_else() -> None:
    """A DataLoader ends its forked workers by SIGTERM; they share the pipe."""
    with Signals(alone=False).watching() as watched:
        pid = os.fork()
        if pid == 0:
            time.sleep(20)
            os._exit(0)
        time.sleep(0.1)
        os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
        assert recorded(watched, 0.6) is None


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Signals().watching():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_processes_share_a_signal() -> None:
    class Board:
        said: int | None = None

        def send(self, number: int) -> None:
            self.said = number

        def received(self) -> int | None:
            return self.said

    board = Board()
    with Signals(alone=False).watching() as watched:
        watched.shared = board
        watched.note(signal.SIGUSR1)
        time.sleep(0.6)
        assert board.said == signal.SIGUSR1
    with Signals(alone=False).watching() as other:
        other.shared = board
        assert recorded(other) == signal.SIGUSR1
    assert (exit_code(signal.SIGUSR1), describe(signal.SIGUSR1)) == (75, "asked to make room")
