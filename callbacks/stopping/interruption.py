"""Stop a signalled run between two steps, on all ranks together, and save it there.

A signal to any rank reaches all within a second (`signals`, through the process group's store). Ranks still stop at the
same step: each finishes its current batch, and then all agree in a separate collective at the same line of code, so
that no rank is left waiting in another collective.
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
from callbacks.stopping.signals import Signals, current, describe, exit_code

_WAIT_FOR_FIRST = 15.0  # seconds that other ranks wait for rank 0 to save
_WAIT_FOR_OTHERS = 3.0
_NUMBER, _SAVED, _SEEN = "modulant/signal", "modulant/saved", "modulant/seen"


class Interrupted(SIGTERMException):
    """Raised between two steps, when a signal ends the run.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(exit_code(number))
        self.number = number

    def __str__(self) -> str:
        return describe(self.number)


class _Store:
    """The process group's key-value store, by a separate connection, since the existing one may block."""

    def __init__(self) -> None:
        store = cast(Any, distributed.distributed_c10d._get_default_store())
        self._store = store.clone() if hasattr(store, "clone") else store
        self._store.set_timeout(timedelta(seconds=5))

    def send(self, number: int) -> None:
        self._store.set(_NUMBER, str(number))

    def received(self) -> int | None:
        return int(self._store.get(_NUMBER)) if self._store.check([_NUMBER]) else None

    def release_others(self, others: int) -> None:
        """On rank 0, which hosts the store: signal that it has saved, and wait until the others have seen that."""
        self._store.set(_SAVED, "1")
        until = time.monotonic() + _WAIT_FOR_OTHERS
        while time.monotonic() < until and self._store.add(_SEEN, 0) < others:
            time.sleep(0.05)

    def wait_for_first(self) -> None:
        """On the other ranks: wait until rank 0 has saved."""
        until = time.monotonic() + _WAIT_FOR_FIRST
        while time.monotonic() < until and not self._store.check([_SAVED]):
            time.sleep(0.05)
        self._store.add(_SEEN, 1)


class RunSignals(_SignalConnector):
    """Replaces Lightning's signal connector, whose handlers save in the middle of a step and wait for other ranks."""

    def __init__(self, trainer: pl.Trainer, signals: Signals) -> None:
        super().__init__(trainer)
        self.signals = signals
        self._store: _Store | None = None
        self._group: Any = None

    @property
    def received_sigterm(self) -> bool:
        """False; ends the loop of an evaluation after a signal. `Interruptible` handles training."""
        if (self.trainer.evaluating or self.trainer.sanity_checking) and stop_requested(self.trainer, together=True):
            raise StopIteration  # ends the evaluation's loop early; all ranks agree at its end
        return False

    @received_sigterm.setter
    def received_sigterm(self, value: bool) -> None:
        """Ignore the value that Lightning's constructor sets."""

    def register_signal_handlers(self) -> None:
        """Do nothing: handlers are installed at the start of the process."""

    def connect(self) -> None:
        """Connect the ranks once their process group exists. A collective."""
        if self._group is None and self.trainer.world_size > 1 and distributed.is_initialized():
            self._group = distributed.new_group(backend="gloo")  # on the CPU: does not wait for the device
            self.signals.shared = self._store = _Store()

    def agreed_signal(self) -> int | None:
        """Signal received by any rank, the same on all ranks. A collective."""
        number = self.signals.number or 0
        if self._group is not None:
            largest = torch.tensor(number)
            distributed.all_reduce(largest, op=distributed.ReduceOp.MAX, group=self._group)
            number = int(largest)
        return number or None

    def teardown(self) -> None:
        """Keep the other ranks alive until rank 0 has saved: a launcher may kill all when one exits."""
        self.signals.shared = None
        if self._store is not None and self.signals.number is not None:
            try:
                if self.trainer.is_global_zero:
                    self._store.release_others(self.trainer.world_size - 1)
                else:
                    self._store.wait_for_first()
            except RuntimeError:  # rank 0 is gone, and its store with it
                pass
        self._store = self._group = None


def stop_requested(trainer: pl.Trainer, together: bool = False) -> bool:
    """Whether a signal was received: then long work is cut short, up to the next `stop_together`.

    Args:
        together: all ranks call this equally often. If forward passes are collectives (sharded backbone), all get the
            same answer, by a collective; otherwise a rank that stopped alone would leave the others waiting.
    """
    connector = trainer._signal_connector
    if not isinstance(connector, RunSignals):
        return False
    if together and isinstance(trainer.strategy, ShardedStrategy):
        return connector.agreed_signal() is not None
    return connector.signals.number is not None


def stop_together(trainer: pl.Trainer) -> None:
    """Stop all ranks here if any has received a signal. A collective.

    Raises:
        Interrupted: a rank has received a signal.
    """
    connector = trainer._signal_connector
    if isinstance(connector, RunSignals) and (number := connector.agreed_signal()) is not None:
        connector.signals.note(number)  # if only other ranks had received it
        raise Interrupted(number)


class Interruptible(pl.Callback):
    """Ends a run on SIGINT, SIGTERM or SIGUSR1, if the process watches them (`signals`).

    Must be the first callback, so that no other one starts work that would not be finished.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        signals = current()
        if signals is None:
            return
        signals.defer()
        if not isinstance(trainer._signal_connector, RunSignals):
            trainer._signal_connector = RunSignals(trainer, signals)
        trainer._signal_connector.connect()
        stop_together(trainer)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stop_together(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stop_together(trainer)

    def on_between_steps(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop between steps; `RunCheckpoint`, the last callback, saves on this exception."""
        stop_together(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            stop_together(trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stop_together(trainer)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stop_together(trainer)

    def on_predict_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        stop_together(trainer)  # every rank has the same prompts

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stop_together(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stop_together(trainer)
