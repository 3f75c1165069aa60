"""The interface of an objective: a training batch comes in, named terms of the loss come out.

An objective is built by a configuration before any data is there; `prepare` gives it WordNet and the training synsets
once. What it needs of a batch it declares, so that nothing else is computed.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from modulant.lexicon import Lexicon

Synsets = npt.NDArray[np.int64]


class Term(NamedTuple):
    """One term of a loss: the loss is Σ weight · value."""

    value: Float[Tensor, ""]
    weight: float = 1.0


@dataclass(frozen=True)
class TrainingBatch:
    """What a training step gives an objective, of the whole batch: over all processes, in the batch's order.

    Attributes:
        task_loss: the model's own task's loss, in nats per token: the cross-entropy of lemmas given definitions, or,
            of an encoder, of hidden tokens of definitions; None where the objective does not need it.
        representations: (B, D) in fp32, the mean over unpadded tokens of the encoder's last hidden state, with its
            gradient; None where the objective does not need synsets.
        base: (B, D) the same of the frozen encoder; None where the objective does not need it.
        synsets: (B,) rows of the lexicon, distinct; None where the objective does not need synsets.
    """

    task_loss: Tensor | None = None
    representations: Float[Tensor, "batch dim"] | None = None
    base: Float[Tensor, "batch dim"] | None = None
    synsets: Synsets | None = None


class Objective(ABC):
    """What a training minimises.

    Attributes:
        needs_task: the loss of the model's own task.
        needs_synsets: representations of distinct synsets: batches as ``data.near_pairs`` makes them.
        needs_base: the frozen encoder's representations of them.
    """

    needs_task: bool = False
    needs_synsets: bool = True
    needs_base: bool = False

    def prepare(self, lexicon: Lexicon, synsets: Synsets) -> Sequence[str]:
        """Called once before the first step, on every process.

        Args:
            lexicon: WordNet.
            synsets: rows of all training synsets, ascending.

        Returns:
            Notes for the user, a line each.

        Raises:
            ValueError: this objective cannot be trained on them.
        """
        return ()

    @abstractmethod
    def terms(self, batch: TrainingBatch) -> Mapping[str, Term]:
        """The loss of a batch by names, under which they are logged as ``train/<name>``.

        What is not defined for a batch, as a correlation of constants, is 0 with a gradient of zeros.
        """

    def describe(self) -> dict[str, object]:
        """Facts for the report."""
        return {"class": type(self).__name__}


def to_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on a device, for which no step waits: a GPU fetches it itself, from pinned memory."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def total(terms: Mapping[str, Term]) -> Float[Tensor, ""]:
    """Σ weight · value.

    >>> float(total({"a": Term(torch.tensor(2.0), 0.5), "b": Term(torch.tensor(3.0))}))
    4.0
    """
    parts = [term.value if term.weight == 1.0 else term.weight * term.value for term in terms.values()]
    return torch.stack(parts).sum() if len(parts) > 1 else parts[0]
