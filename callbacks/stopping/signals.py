"""Handle SIGINT, SIGTERM and SIGUSR1: recorded at once, acted on between steps.

A thread records them: it reads the pipe that Python's C-level handler writes to. A Python handler runs only between two
bytecodes of the main thread, which may wait in a collective for minutes. The thread also ensures that a signalled run
ends: after `GRACE` seconds it exits the process. Checkpoints are replaced atomically, so at most the steps since the
last one are lost.

Only the standard library is imported here, so that a command line can watch from its start.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

GRACE = 25.0  # seconds; schedulers often kill 30 seconds after a signal
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: not a failure, start again later
_POLL = 0.25  # seconds

# Exit code, and the word in the last line. SLURM can be configured to send USR1 before a job's time limit.
_CODES = {signal.SIGINT: 128 + signal.SIGINT, signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGUSR1: TRY_AGAIN}
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGUSR1: "asked to make room"}


def exit_code(number: int) -> int:
    """Exit code of a process after a signal.

    >>> exit_code(15), exit_code(2), exit_code(10)
    (143, 130, 75)
    """
    return _CODES[signal.Signals(number)]


def describe(number: int) -> str:
    """Describe in words how a signal ended a run."""
    return _WORDS[signal.Signals(number)]


def peer_lost(error: BaseException) -> bool:
    """Whether a collective failed because another process or its machine is gone."""
    return type(error).__name__ in ("DistBackendError", "DistNetworkError") or "gloo/transport" in str(error)


class Stopped(BaseException):
    """Raised in the main thread by a signal while user input is waited for."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Shared(Protocol):
    """Store by which the processes of one run share a received signal."""

    def send(self, number: int) -> None: ...
    def received(self) -> int | None: ...


class Signals:
    """Records SIGINT, SIGTERM and SIGUSR1 while `watching`.

    At first, while libraries are imported and a run is set up, a signal exits the process at once: an exception that a
    handler raises may land in a finaliser or a weak reference's callback, where Python drops it. After `defer` a signal
    is only recorded, to be checked between steps.

    Args:
        alone: whether this is the run's only process. With several, signals are deferred from the start, since the
            others would wait for this one.
        child: whether another process of the run has started this one. It exits when that one is gone, and prints
            nothing.
        launched: whether a torchrun agent has started this process. It exits when that one is gone.
        last_line: what to print when a signal exits the process at once; "" prints nothing.

    Attributes:
        clean_up: called before the process exits at once, such as to remove an empty run folder.
    """

    def __init__(
        self,
        alone: bool = True,
        child: bool = False,
        launched: bool = False,
        last_line: Callable[[int], str] = lambda number: "",
    ) -> None:
        self.clean_up: Callable[[], None] = lambda: None
        self._last_line = last_line
        self._immediate = False
        self.number: int | None = None  # the first signal, here or in another process of the run
        self.shared: Shared | None = None
        self._parent = os.getppid() if child or launched else None
        self._prints = not child
        self._deferred = not alone
        self._since = 0.0
        self._over = threading.Event()

    def defer(self) -> None:
        """Only record signals from now on."""
        self._deferred = True

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Context, for waiting for user input, in which a signal raises at once.

        Ctrl-C raises `KeyboardInterrupt` and is not recorded; any other signal raises `Stopped`.
        """
        self._immediate = True
        fd = signal.set_wakeup_fd(-1)  # the thread does not see signals in this context
        try:
            yield
        except Stopped as stopped:
            if stopped.number != signal.SIGINT:
                raise
            self.number = None
            raise KeyboardInterrupt from stopped
        finally:
            signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
            self._immediate = False

    @contextmanager
    def watching(self) -> Iterator["Signals"]:
        """Context in which signals are watched; handlers are restored afterwards.

        Does nothing off the main thread, where Python allows no handlers.
        """
        global _current
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        reader, writer = os.pipe()
        for end in (reader, writer):
            os.set_blocking(end, False)
        # A shell starts background jobs with SIGINT ignored; keep that.
        watched = [n for n in _CODES if signal.getsignal(n) is not signal.SIG_IGN]
        before = {n: signal.signal(n, self._handle) for n in watched}
        # a full pipe already contains the signal
        fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        outer, _current = _current, self
        guards = [
            threading.Thread(target=self._watch, args=(reader,), name="signals", daemon=True),
            threading.Thread(target=self._exchange, name="signals-shared", daemon=True),
        ]
        for guard in guards:
            guard.start()
        try:
            yield self
        finally:
            _current = outer
            self._over.set()
            signal.set_wakeup_fd(fd)
            for n, handler in before.items():
                signal.signal(n, handler)
            guards[0].join()
            for end in (reader, writer):
                os.close(end)

    def _handle(self, number: int, frame: object) -> None:
        """Python-level handler, in the main thread."""
        self.note(number)
        if self._immediate:
            self._immediate = False
            raise Stopped(number)
        if not self._deferred:
            self._exit_before_start(number)

    def _exit_before_start(self, number: int) -> None:
        self.clean_up()
        line = self._last_line(number)
        with suppress(RuntimeError, ValueError):  # the signal came while this stream was being written, or it is closed
            sys.stdout.flush()
        os.write(2, f"{line}\n".encode() if line else b"")
        os._exit(exit_code(number) if self._prints else 0)  # a launcher kills all processes on any other code

    def note(self, number: int) -> None:
        """Record the first signal of a run."""
        if self.number is None:
            self.number, self._since = number, time.monotonic()

    def _watch(self, reader: int) -> None:
        presses = 0
        while not self._over.is_set():
            ready, _, _ = select.select([reader], [], [], _POLL)
            for number in os.read(reader, 512) if ready else b"":
                if number not in list(_CODES):
                    continue
                presses += number == signal.SIGINT
                self.note(number)
                # a second one within a second may be the same: a terminal sends one to every process
                if presses > 1 and time.monotonic() - self._since > 1:
                    self._exit_now("interrupted twice; stopped at once, the last checkpoint is whole")
            if self.number is not None and time.monotonic() - self._since > GRACE:
                self._exit_now(
                    f"{describe(self.number)}; the run did not end by itself within {GRACE:.0f} seconds, so it was "
                    "stopped at once; the last checkpoint is whole"
                )
            if self._parent is not None and os.getppid() != self._parent:
                self.note(signal.SIGTERM)  # the parent is gone: nothing waits for this process

    def _exchange(self) -> None:
        """Share signals through the store; in a separate thread, since store calls may block."""
        sent = False
        while not self._over.wait(_POLL):
            shared = self.shared
            if shared is None:
                continue
            try:
                if self.number is not None and not sent:
                    shared.send(self.number)
                    sent = True
                elif self.number is None and (number := shared.received()) is not None:
                    self.note(number)
            except RuntimeError:  # the process that hosts the store is gone
                self.shared = None

    def _exit_now(self, line: str) -> None:
        assert self.number is not None
        if self._prints:
            print(line, file=sys.stderr, flush=True)
        os._exit(exit_code(self.number))

    def _detach(self) -> None:
        """Stop watching in a forked process, such as a DataLoader worker.

        It shares the pipe, so a signal to it would be recorded in the parent.
        """
        self._over.set()
        signal.set_wakeup_fd(-1)
        for number in _CODES:
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)


_current: Signals | None = None


def current() -> Signals | None:
    """The `Signals` of this process, if it is watching."""
    return _current


def _detach_in_child() -> None:
    global _current
    if _current is not None:
        _current._detach()
        _current = None


os.register_at_fork(after_in_child=_detach_in_child)
