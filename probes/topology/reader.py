"""The weights of a model in its files, one tensor at a time: the model is never built, and nothing read is kept."""

import hashlib
import json
from collections.abc import Iterable

import torch
from torch import Tensor

from modulant.assets import resolve_backbone
from modulant.backbones.loading import translate_weight_errors
from modulant.backbones.weights import Rows, shape_of, stored_tensors, type_of

_ROWS_PER_BLOCK = 4096


class Weights:
    """Tensors of a folder, hub id or GGUF file by name: safetensors or pickles, in one file or several with an index.

    Files are mapped into memory, so that their pages count as the system's file cache.

    Attributes:
        names: of all tensors.
        missing: shards that the index names and that are not there.

    Raises:
        ValueError: no weights that can be read, or two files hold a tensor of the same name.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        self._name, self._device = name, torch.device(device)
        self._rows: dict[str, Rows] = {}
        self.missing: list[str] = []
        with translate_weight_errors(name):
            for tensor, rows in stored_tensors(resolve_backbone(name), self.missing):
                if tensor in self._rows:
                    raise ValueError(f"two files hold {tensor}")
                self._rows[tensor] = rows

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._rows)

    def read(self, name: str) -> Tensor:
        """A tensor in fp32 on the device.

        Raises:
            ValueError: it cannot be read, or holds integers, as of a quantised model.
        """
        with translate_weight_errors(self._name):
            tensor = self._rows[name](None, None)
        if not tensor.is_floating_point():
            raise ValueError(f"{self._name!r} holds {name} as {tensor.dtype}: quantised weights are not supported")
        return tensor.to(self._device).float()

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, of which nothing is read."""
        return shape_of(self._rows[name])

    def type(self, name: str) -> str:
        """How its numbers are stored: ``float16``, ``Q4_1``, …."""
        return type_of(self._rows[name])

    def equal(self, first: str, second: str) -> bool:
        """Whether two tensors hold the same, read in blocks of rows."""
        if self.shape(first) != self.shape(second):
            return False
        a, b = self._rows[first], self._rows[second]
        starts = range(0, self.shape(first)[0], _ROWS_PER_BLOCK)
        return all(torch.equal(a(i, i + _ROWS_PER_BLOCK), b(i, i + _ROWS_PER_BLOCK)) for i in starts)

    def fingerprint(self, *more: object) -> str:
        """Digest of names, shapes and whatever else a result depends on, by which an interrupted one is known again."""
        about = [[name, *self.shape(name)] for name in sorted(self.names)]
        return hashlib.sha256(json.dumps([about, *map(str, more)]).encode()).hexdigest()


def without_duplicates(weights: Weights, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Tensors that differ, and those that equal an earlier one: a T5's file may hold its embeddings four times."""
    kept: list[str] = []
    again: list[str] = []
    for name in names:
        (again if any(weights.equal(name, one) for one in kept) else kept).append(name)
    return kept, again
