"""Protocols of the LightningModules and DataModules that these callbacks work with."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor, Tensor]  # rows (B,), input ids (B, S), attention mask (B, S)


class Encode(Protocol):
    """Function (input ids, attention mask), both (B, S), → hidden states (B, S, D)."""

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, /) -> Tensor: ...


class Stream(Protocol):
    """Sizes of a residual stream."""

    @property
    def d_model(self) -> int: ...


class Handle(Protocol):
    """Handle of an attached modulator or adapter."""

    def disabled(self) -> AbstractContextManager[Any]: ...


class Modulated(Protocol):
    """LightningModule of a T5 with a modulator attached by a handle; without one, both are None."""

    modulator: nn.Module | None
    handle: Handle | None

    @property
    def layers(self) -> Sequence[int]: ...
    @property
    def stream(self) -> Stream: ...
    @property
    def active_dims(self) -> Tensor: ...
    def encode(self, input_ids: Tensor, attention_mask: Tensor, /) -> Tensor: ...
    def static_embed(self, input_ids: Tensor, /) -> Tensor: ...
    def random_encoder(self) -> Encode: ...


class Population(Protocol):
    """Distinct synsets that geometry is measured on."""

    @property
    def part(self) -> np.ndarray[Any, np.dtype[np.int8]]: ...  # 0 training, 1 validation, 2 test
    def __len__(self) -> int: ...


class PopulationSource(Protocol):
    """DataModule with a population of synsets."""

    @property
    def population(self) -> Population: ...
    def population_batches(self) -> Sequence[Batch]: ...
    def path_distances(self) -> np.ndarray[Any, np.dtype[np.uint8]]: ...
    def hypernym_chains(self, depth: int) -> np.ndarray[Any, np.dtype[np.int64]]: ...
    def parts_of_speech(self) -> np.ndarray[Any, np.dtype[np.str_]]: ...
    def categories(self) -> tuple[np.ndarray[Any, np.dtype[np.int64]], Sequence[str]]: ...


class OfModulated(L.Callback):
    """Base of the callbacks that look into a `Modulated` module; in the runs of others there are none of them."""


def applying(callbacks: Iterable[L.Callback], module: L.LightningModule) -> list[L.Callback]:
    """The callbacks without those that this module has nothing for."""
    return [some for some in callbacks if hasattr(module, "handle") or not isinstance(some, OfModulated)]


def modulated(module: L.LightningModule) -> Modulated:
    """Cast a LightningModule to `Modulated`."""
    return cast(Modulated, module)


def population_source(trainer: L.Trainer) -> PopulationSource:
    """Return the run's DataModule, which must have a population of synsets.

    Raises:
        ValueError: there is no DataModule, or it has no population.
    """
    data = getattr(trainer, "datamodule", None)
    if not hasattr(data, "population_batches"):
        name = "no DataModule" if data is None else f"a {type(data).__name__}"
        raise ValueError(f"data: geometry is measured on the population of a WordNetDataModule, and the run has {name}")
    return cast(PopulationSource, data)


@torch.no_grad()
def layer_alphas(module: L.LightningModule, *more: Tensor) -> Tensor:
    """α of the modulated layers, (layers, experts) in fp64 on the CPU.

    With `more` tensors of that shape, which come in the same transfer: (1 + more, layers, experts).
    """
    alphas = cast(Tensor, cast(Any, module).modulator.alphas).detach()[list(modulated(module).layers)]
    together = torch.stack([alphas, *more]).cpu().double()
    return together if more else together[0]
