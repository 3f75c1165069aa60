"""A run that is told to end does so between two steps, on all ranks at once, and is saved there.

Every rank learns of a signal to any of them within a moment (`signals`, through the store of the process group). They
leave in step all the same: who has learned of it finishes no more than the batch at hand, and then all agree, in a
collective of their own, at the same line. Nobody is left waiting in another collective.
"""

import time
from datetime import timedelta
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import distributed

from callbacks.sharded import ShardedStrategy
from callbacks.stopping.signals import Signals, current, exit_code, word

_WAIT_FOR_FIRST = 15.0  # seconds that other ranks stay until the first one has saved
_WAIT_FOR_OTHERS = 3.0
_NUMBER, _LEFT, _HEARD = "modulant/signal", "modulant/left", "modulant/heard"


class Interrupted(SIGTERMException):
    """A signal has ended a run, between two steps.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(exit_code(number))
        self.number = number

    def __str__(self) -> str:
        return word(self.number)


class _Store:
    """The process group's key-value store, asked by a connection of its own: the other one may be kept waiting."""

    def __init__(self) -> None:
        store = cast(Any, distributed.distributed_c10d._get_default_store())
        self._store = store.clone() if hasattr(store, "clone") else store
        self._store.set_timeout(timedelta(seconds=5))

    def tell(self, number: int) -> None:
        self._store.set(_NUMBER, str(number))

    def told(self) -> int | None:
        return int(self._store.get(_NUMBER)) if self._store.check([_NUMBER]) else None

    def leave(self, others: int) -> None:
        """Of the first rank, which holds the store: tell the others that it has saved, and let them hang up."""
        self._store.set(_LEFT, "1")
        until = time.monotonic() + _WAIT_FOR_OTHERS
        while time.monotonic() < until and self._store.add(_HEARD, 0) < others:
            time.sleep(0.05)

    def wait_for_first(self) -> None:
        """Of the others."""
        until = time.monotonic() + _WAIT_FOR_FIRST
        while time.monotonic() < until and not self._store.check([_LEFT]):
            time.sleep(0.05)
        self._store.add(_HEARD, 1)


class RunSignals(_SignalConnector):
    """In the place of Lightning's connector, whose handlers save in the middle of a step and wait for other ranks."""

    def __init__(self, trainer: pl.Trainer, signals: Signals) -> None:
        super().__init__(trainer)
        self.signals = signals
        self._store: _Store | None = None
        self._group: Any = None

    @property
    def received_sigterm(self) -> bool:
        """Lightning asks after each batch of a training, where `Interruptible` knows better, and of an evaluation."""
        if (self.trainer.evaluating or self.trainer.sanity_checking) and leaving(self.trainer, together=True):
            raise StopIteration  # ends the evaluation's loop; all agree at its end, with as many batches as they have
        return False

    @received_sigterm.setter
    def received_sigterm(self, value: bool) -> None:
        """Lightning's constructor sets what it never received."""

    def register_signal_handlers(self) -> None:
        """None: they are there since the process began."""

    def connect(self) -> None:
        """Reach the other ranks; on all of them, when their process group is there."""
        if self._group is None and self.trainer.world_size > 1 and distributed.is_initialized():
            self._group = distributed.new_group(backend="gloo")  # on the host: no wait for the device
            self.signals.shared = self._store = _Store()

    def agreed(self) -> int | None:
        """The signal that has come to any rank; the same on all. A collective."""
        number = self.signals.number or 0
        if self._group is not None:
            said = torch.tensor(number)
            distributed.all_reduce(said, op=distributed.ReduceOp.MAX, group=self._group)
            number = int(said)
        return number or None

    def teardown(self) -> None:
        """Ranks other than the first stay until it has saved: a launcher may kill all when one has gone."""
        self.signals.shared = None
        if self._store is not None and self.signals.number is not None:
            try:
                if self.trainer.is_global_zero:
                    self._store.leave(self.trainer.world_size - 1)
                else:
                    self._store.wait_for_first()
            except RuntimeError:  # it has gone, and its store with it
                pass
        self._store = self._group = None


def leaving(trainer: pl.Trainer, together: bool = False) -> bool:
    """Whether a signal has come: then long work is cut short, up to the next `leave_together`.

    Args:
        together: all ranks ask here, as often. Where each forward pass is a collective, in which a rank that had left
            would be waited for, they get the same answer; then this is a collective too.
    """
    connector = trainer._signal_connector
    if not isinstance(connector, RunSignals):
        return False
    if together and isinstance(trainer.strategy, ShardedStrategy):
        return connector.agreed() is not None
    return connector.signals.number is not None


def leave_together(trainer: pl.Trainer) -> None:
    """Where all ranks come by: they go on, or all end here. A collective.

    Raises:
        Interrupted: a signal has come to one of them.
    """
    connector = trainer._signal_connector
    if isinstance(connector, RunSignals) and (number := connector.agreed()) is not None:
        connector.signals.note(number)  # where only the others had learned of it
        raise Interrupted(number)


class Interruptible(pl.Callback):
    """Ends a run on SIGINT, SIGTERM or SIGUSR1, where the process watches them (`signals`). The first of all callbacks,
    so that no other one begins what would not be finished."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        signals = current()
        if signals is None:
            return
        signals.be_patient()
        if not isinstance(trainer._signal_connector, RunSignals):
            trainer._signal_connector = RunSignals(trainer, signals)
        trainer._signal_connector.connect()
        leave_together(trainer)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        leave_together(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        leave_together(trainer)

    def on_between_steps(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Asked of the callbacks in their order, and `RunCheckpoint` is the last: it saves on this exception."""
        leave_together(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            leave_together(trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        leave_together(trainer)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        leave_together(trainer)

    def on_predict_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        leave_together(trainer)  # every rank is asked the same prompts

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        leave_together(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        leave_together(trainer)
