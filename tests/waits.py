"""Where a training step would make the host wait for a device, found without a device.

A kernel is launched and the host goes on; it waits only where Python asks for a value: `.item()`, `bool(…)`, `.cpu()`,
an index whose size depends on values. On a CPU these work as well, as often and in the same places. Some of those that
are counted would not wait on a GPU, since their tensor is the host's there too (an optimizer's count of steps): which
ones, a test has to say.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

Place = tuple[str, str]  # the file, as seen from the package's folder, and the function

# What cannot end before a value has come to the host, or the size of its result is known.
_OPERATIONS = frozenset(
    f"aten::{name}"
    for name in (
        "_local_scalar_dense",
        "equal",
        "masked_select",
        "nonzero",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "bincount",
        "_linalg_check_errors",
    )
)
_METHODS = {Tensor.cpu, Tensor.tolist, Tensor.numpy, Tensor.__array__}
_NOBODY = ("/torch/", Path(__file__).name)  # frames that only pass on what another one asked


class Waits(TorchDispatchMode):
    """Counts, inside ``with``, each place and what it asked for.

    Attributes:
        found: step → place → how often. What comes while `step` is None is not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int, Counter[Place]] = {}
        self.step: int | None = None
        self._methods = _Methods(self)

    def __enter__(self) -> "Waits":
        self._methods.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._methods.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name in _OPERATIONS or (name in ("aten::index", "aten::index_put_") and _by_mask(args[1])):
            self.note()
        return func(*args, **(kwargs or {}))

    def note(self) -> None:
        if self.step is not None:
            self.found.setdefault(self.step, Counter())[_place()] += 1

    def places(self, *steps: int) -> set[Place]:
        """Where something waited, in any of the given steps."""
        return {place for step in steps for place in self.found.get(step, ())}


class _Methods(TorchFunctionMode):
    """What a tensor of the CPU does without an operation: `.cpu()` is itself already, `.tolist()` reads its memory."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # by its name: a `torch.device` may be the one that the run is on, and be a CPU only here
        to_host = func is Tensor.to and any(to == "cpu" for to in (*args[1:], *kwargs.values()) if isinstance(to, str))
        # a number of Python's is sent to the device, from memory that is not pinned: the host waits for that as well
        sent = func is torch.tensor and kwargs.get("device") is not None
        if func in _METHODS or to_host or sent:
            self._waits.note()
        return func(*args, **kwargs)


class Steps(pl.Callback):
    """Counts what waits in the steps of a training.

    A step is from a batch's begin to the next one's, logging and loading included. An epoch's end is none: figures are
    written then, and the run is saved.
    """

    def __init__(self) -> None:
        self.waits = Waits()
        self.seen: list[int] = []

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.waits.step is None:
            self.waits.__enter__()
        self.waits.step = trainer.global_step
        self.seen.append(trainer.global_step)

    def on_train_epoch_end(self, *_: Any) -> None:
        self._rest()

    def on_validation_start(self, *_: Any) -> None:
        self._rest()

    def on_exception(self, *_: Any) -> None:
        self._rest()

    def _rest(self) -> None:
        if self.waits.step is not None:
            self.waits.step = None
            self.waits.__exit__(None, None, None)


@contextmanager
def with_callback(callback: pl.Callback) -> Iterator[None]:
    """Runs of `train.main` have one callback more, the first of all."""
    from cli.running.run import ModulantCLI

    build = ModulantCLI._instantiate_trainer

    def instantiate(self: ModulantCLI, config: Any, callbacks: list[pl.Callback]) -> pl.Trainer:
        trainer = build(self, config, callbacks)
        trainer.callbacks.insert(0, callback)  # type: ignore[attr-defined]
        return trainer

    with ExitStack() as stack:
        stack.enter_context(patch.object(ModulantCLI, "_instantiate_trainer", instantiate))
        yield


def _by_mask(indices: Any) -> bool:
    return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _place() -> Place:
    """The last function that is not torch's own; of an optimizer, its file."""
    frame = sys._getframe(2)
    while frame.f_back is not None and (
        frame.f_code.co_name == "<genexpr>" or any(part in frame.f_code.co_filename for part in _NOBODY)
    ):
        if "/torch/optim/" in frame.f_code.co_filename:
            return "torch/optim", Path(frame.f_code.co_filename).name
        frame = frame.f_back
    return "/".join(Path(frame.f_code.co_filename).parts[-2:]), frame.f_code.co_name
