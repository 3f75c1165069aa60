"""The signals that end a run from outside: noted at once, acted on where nothing is half done.

What notes them is a thread that reads the pipe into which Python's own C handler writes, since Python code in a handler
runs only between two of the main thread's bytecodes, and that thread may wait in a collective for minutes. The thread
also keeps the promise that a run which was told to end does end: what has not left by itself after `GRACE` seconds is
left where it is. Checkpoints are replaced as a whole, so that costs no more than the steps since the last one.

Nothing heavy is imported here: a command line watches from its first moment.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

GRACE = 25.0  # seconds; who sends a signal often kills after 30
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: nothing failed, begin again later
_POLL = 0.25  # seconds

# Exit code and what the last line says. USR1 is what SLURM is told to send before a job's time is over.
_CODES = {signal.SIGINT: 128 + signal.SIGINT, signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGUSR1: TRY_AGAIN}
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGUSR1: "asked to make room"}


def exit_code(number: int) -> int:
    """What a process ends with after a signal.

    >>> exit_code(15), exit_code(2), exit_code(10)
    (143, 130, 75)
    """
    return _CODES[signal.Signals(number)]


def word(number: int) -> str:
    """What is said of a run that a signal has ended."""
    return _WORDS[signal.Signals(number)]


def lost_another(error: BaseException) -> bool:
    """Whether a collective has failed because a process that took part in it, or its machine, is gone."""
    return type(error).__name__ in ("DistBackendError", "DistNetworkError") or "gloo/transport" in str(error)


class Stopped(BaseException):
    """A signal, before there was anything to save: raised where the main thread happens to be."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Shared(Protocol):
    """Where processes of one run tell each other that a signal has come."""

    def tell(self, number: int) -> None: ...
    def told(self) -> int | None: ...


class Signals:
    """Notes SIGINT, SIGTERM and SIGUSR1 while `watching`.

    At first a signal raises `Stopped`; after `be_patient` it is only noted, for whoever asks between steps.

    Args:
        alone: whether this is a run's only process. Of several, each is patient from the beginning: the others would
            wait for it.
        child: whether another process has started this one for a further device. It leaves when that one is gone.
        launched: whether an agent of torchrun has started this one. It leaves with it too, but speaks.
    """

    def __init__(self, alone: bool = True, child: bool = False, launched: bool = False) -> None:
        self.number: int | None = None  # the first one that came, here or in another process of the run
        self.shared: Shared | None = None
        self._parent = os.getppid() if child or launched else None
        self._speaks = not child
        self._patient = not alone
        self._since = 0.0
        self._over = threading.Event()

    def be_patient(self) -> None:
        self._patient = True

    @contextmanager
    def impatient(self) -> Iterator[None]:
        """Inside, where a person is waited for, a signal ends the wait: Ctrl-C as `KeyboardInterrupt`, which is
        forgotten with it, and any other as `Stopped`."""
        before, self._patient = self._patient, False
        fd = signal.set_wakeup_fd(-1)  # of what comes now, nobody else shall hear
        try:
            yield
        except Stopped as stopped:
            if stopped.number != signal.SIGINT:
                raise
            self.number = None
            raise KeyboardInterrupt from stopped
        finally:
            signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
            self._patient = before

    @contextmanager
    def watching(self) -> Iterator["Signals"]:
        """Watch inside; outside, all is as it was. Off the main thread Python allows no handlers: then nothing is."""
        global _current
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        reader, writer = os.pipe()
        for end in (reader, writer):
            os.set_blocking(end, False)
        # A shell starts what it runs in the background with Ctrl-C ignored, and that should stay.
        watched = [n for n in _CODES if signal.getsignal(n) is not signal.SIG_IGN]
        before = {n: signal.signal(n, self._handle) for n in watched}
        # a full pipe has said all there is to say
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
        """In the main thread, whenever that comes round to it."""
        self.note(number)
        if not self._patient:
            self._patient = True
            raise Stopped(number)

    def note(self, number: int) -> None:
        """Remember the first signal of a run."""
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
                if presses > 1 and time.monotonic() - self._since > 1:  # a terminal sends one to every process
                    self._leave_at_once("interrupted twice; left where it was, the last checkpoint is whole")
            if self.number is not None and time.monotonic() - self._since > GRACE:
                self._leave_at_once(
                    f"{word(self.number)}; not between two steps after {GRACE:.0f} seconds, so it was left where it "
                    "was: the last checkpoint is whole"
                )
            if self._parent is not None and os.getppid() != self._parent:
                self.note(signal.SIGTERM)  # nobody will wait for this process any more

    def _exchange(self) -> None:
        """In a thread of its own: a store may keep whoever asks it waiting."""
        told = False
        while not self._over.wait(_POLL):
            shared = self.shared
            if shared is None:
                continue
            try:
                if self.number is not None and not told:
                    shared.tell(self.number)
                    told = True
                elif self.number is None and (number := shared.told()) is not None:
                    self.note(number)
            except RuntimeError:  # the process that holds the store is gone
                self.shared = None

    def _leave_at_once(self, line: str) -> None:
        assert self.number is not None
        if self._speaks:
            print(line, file=sys.stderr, flush=True)
        os._exit(exit_code(self.number))

    def _forget(self) -> None:
        """In a process that was forked from this one, such as a DataLoader's worker: it shares the pipe, and a signal
        to it would count as one to us."""
        self._over.set()
        signal.set_wakeup_fd(-1)
        for number in _CODES:
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)


_current: Signals | None = None


def current() -> Signals | None:
    """The signals of this process, where somebody watches them."""
    return _current


def _forget_in_child() -> None:
    global _current
    if _current is not None:
        _current._forget()
        _current = None


os.register_at_fork(after_in_child=_forget_in_child)
