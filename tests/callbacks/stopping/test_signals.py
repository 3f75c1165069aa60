"""Signals are noted whatever the main thread does, and a process that was told to end does end."""

import os
import signal
import threading
import time

import pytest

from callbacks.stopping import signals
from callbacks.stopping.signals import Signals, Stopped, current, exit_code, word


def later(number: int, seconds: float = 0.05) -> None:
    threading.Timer(seconds, os.kill, (os.getpid(), number)).start()


def noted(watched: Signals, seconds: float = 5) -> int | None:
    until = time.monotonic() + seconds
    while watched.number is None and time.monotonic() < until:
        time.sleep(0.01)
    return watched.number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_at_first_a_signal_raises_and_later_it_is_noted(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as caught, Signals().watching():
        signal.raise_signal(number)
    assert caught.value.number == number
    with Signals().watching() as watched:
        assert current() is watched
        watched.be_patient()
        os.kill(os.getpid(), number)
        assert noted(watched) == number
    assert current() is None
    assert signal.getsignal(number) is before


def test_the_main_thread_may_be_busy() -> None:
    """In C, where no handler of Python's runs: the wake-up pipe tells the thread."""
    with Signals(alone=False).watching() as watched:
        seen: list[int | None] = []
        threading.Timer(0.5, lambda: seen.append(watched.number)).start()
        later(signal.SIGTERM)
        pow(7, 10**7 * 3, 10**4000 + 1)  # holds the interpreter for a while
        time.sleep(0.6)
        assert noted(watched) == signal.SIGTERM
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


def test_who_does_not_leave_is_left_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signals, "GRACE", 0.3)

    def hang() -> None:
        with Signals(alone=False).watching():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)

    assert in_child(hang) == 143
    assert capfd.readouterr().err.startswith("terminated; not between two steps after 0 seconds")


def test_ctrl_c_twice_does_not_wait(capfd: pytest.CaptureFixture[str]) -> None:
    def hang() -> None:
        with Signals(alone=False).watching():
            for seconds in (0.0, 1.5):
                time.sleep(seconds)
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(20)

    assert in_child(hang) == 130
    assert "interrupted twice" in capfd.readouterr().err


def test_a_worker_that_is_ended_ends_nobody_else() -> None:
    """A DataLoader ends its forked workers by SIGTERM; they have our pipe."""
    with Signals(alone=False).watching() as watched:
        pid = os.fork()
        if pid == 0:
            time.sleep(20)
            os._exit(0)
        time.sleep(0.1)
        os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
        assert noted(watched, 0.6) is None


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Signals().watching():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_processes_tell_each_other() -> None:
    class Board:
        said: int | None = None

        def tell(self, number: int) -> None:
            self.said = number

        def told(self) -> int | None:
            return self.said

    board = Board()
    with Signals(alone=False).watching() as watched:
        watched.shared = board
        watched.note(signal.SIGUSR1)
        time.sleep(0.6)
        assert board.said == signal.SIGUSR1
    with Signals(alone=False).watching() as other:
        other.shared = board
        assert noted(other) == signal.SIGUSR1
    assert (exit_code(signal.SIGUSR1), word(signal.SIGUSR1)) == (75, "asked to make room")
