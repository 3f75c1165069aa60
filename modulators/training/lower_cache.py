"""Cache for the outputs of the frozen blocks below the lowest modulated one: computed once per training batch.

The hidden states of an entry are not bit-identical in batches of other shapes, since matrix products and attention
choose kernels by shape (on a CPU: attention by width in steps of 16, products with few rows, number of threads). So
whole batches are cached, padding included, and batches keep their members over the run: a read returns exactly what the
blocks computed for this batch, on any device with deterministic kernels. A batch is computed when it is first trained
on, so nothing delays the start; a resumed run fills the cache again.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modulant.backbones.split_encoder import TOKEN_IDS, lower_encoder, upper_encoder
from modulant.storage import storing
from modulators.arguments import CachePlace, StoredDtype

_GIB, _MIB = 2**30, 2**20
Shape = tuple[int, int]  # of a batch: examples, tokens of the longest one


@dataclass(frozen=True)
class CacheSettings:
    """User settings of the cache.

    Attributes:
        where: ``memory`` of the model's device, or ``disk``, a memory-mapped file; None: no cache.
        dtype: of the cached values; None: that of the stream, which is exact.
        limit_gib: maximum size per process, in GiB.
        folder: folder of the file; None: the run folder.
    """

    where: CachePlace | None
    dtype: StoredDtype | None
    limit_gib: float
    folder: str | None


@dataclass(frozen=True)
class CacheSize:
    """Size of one process's cache.

    Attributes:
        below: lowest modulated block; the blocks below it are cached.
        shapes: of the batches.
        width: of the stream.
        stream: dtype of the stream.
        kept: dtype of the cached values.
    """

    below: int
    shapes: Sequence[Shape]
    width: int
    stream: torch.dtype
    kept: torch.dtype

    @classmethod
    def of(
        cls, caching: CacheSettings, below: int, shapes: Sequence[Shape], width: int, stream: torch.dtype
    ) -> "CacheSize":
        """Size of the cache with these settings."""
        return cls(below, shapes, width, stream, getattr(torch, caching.dtype) if caching.dtype else stream)

    @property
    def exact(self) -> bool:
        """Whether cached values equal those of the stream."""
        return torch.promote_types(self.stream, self.kept) == self.kept

    @property
    def tokens(self) -> int:
        """Number of cached tokens, padding included."""
        return sum(examples * longest for examples, longest in self.shapes)

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return self.tokens * self.width * self.kept.itemsize

    def describe(self, where: str) -> str:
        """Describe the cache in one line.

        Args:
            where: place of the cache, in words.
        """
        layers = "layer 0" if self.below == 1 else f"layers 0–{self.below - 1}"
        examples = sum(shape[0] for shape in self.shapes)
        rounded = "" if self.exact else f"; rounded from {_name(self.stream)}, so not exact"
        return (
            f"{layers} of {examples:,} entries: {self.tokens:,} tokens × {self.width} × {self.kept.itemsize} bytes = "
            f"{_size(self.bytes)}, {where}{rounded}"
        )

    def check(self, limit_gib: float) -> None:
        """Check the size against the limit.

        Raises:
            ValueError: it exceeds the limit.
        """
        if self.bytes > limit_gib * _GIB:
            half = "" if self.kept == torch.bfloat16 else ", set model.cache_dtype to bfloat16 (half of it, rounded)"
            raise ValueError(
                f"model.cache_limit_gib is {limit_gib:g}, but the cache takes {_size(self.bytes)} in each process "
                f"({self.tokens:,} tokens × {self.width} × {self.kept.itemsize} bytes); raise it{half}, or set "
                "model.cache to null"
            )


class LowerCache:
    """An encoder that computes the blocks below `below` once for each batch.

    Args:
        caching: user settings.
        encoder: with everything attached to it.
        below: lowest modulated block; at least 1.
        compile: compile the upper blocks with torch.compile.
        needs_token_ids: whether what is attached takes token ids (`modulators.hooks`).
    """

    def __init__(self, caching: CacheSettings, encoder: Any, below: int, compile: bool, needs_token_ids: bool) -> None:
        self._caching, self._below, self._width = caching, below, encoder.config.d_model
        self._lower, self._upper = lower_encoder(encoder, below), upper_encoder(encoder, below)
        if compile:
            self._upper.compile(dynamic=True)
        self._needs_token_ids = needs_token_ids
        self._store: _Store | None = None
        self._described: dict[str, Any] = {}

    def size(self, shapes: Sequence[Shape], stream: torch.dtype) -> CacheSize:
        """Size of the cache for batches of these shapes."""
        return CacheSize.of(self._caching, self._below, shapes, self._width, stream)

    def open(self, shapes: Sequence[Shape], device: torch.device, run: Path) -> str:
        """Allocate the cache for batches of these shapes, and describe it in one line.

        Args:
            device: the model's device.
            run: the run folder.

        Raises:
            ValueError: the cache exceeds the limit.
            StorageError: the disk has not enough free space.
        """
        size = self.size(shapes, self._stream_dtype(device))
        size.check(self._caching.limit_gib)
        if self._caching.where == "disk":
            folder = Path(self._caching.folder or run)
            room, where = memory_mapped(size.bytes, folder).view(size.kept), f"on disk ({folder})"
        else:
            room = torch.empty(size.tokens * size.width, dtype=size.kept, device=device)
            where = f"in memory ({device})"
        self._store = _Store(room, size)
        self._described = {"where": self._caching.where, "bytes": size.bytes, "exact": size.exact}
        return size.describe(where)

    def close(self) -> None:
        """Free the cache."""
        self._store = None

    def describe(self) -> dict[str, Any]:
        """Entries for the report: where the cache was, its bytes in this process, whether it is exact."""
        return self._described

    @torch.no_grad()
    def _stream_dtype(self, device: torch.device) -> torch.dtype:
        """dtype of the input of block `below`, from a pass of one token: weights below it may have several dtypes."""
        one = torch.ones(1, 1, dtype=torch.long, device=device)
        dtype: torch.dtype = self._lower(input_ids=one, attention_mask=one).last_hidden_state.dtype
        return dtype

    def __call__(self, number: int, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Return the encoder's last hidden state (B, S, D) for the run's batch of this number."""
        assert self._store is not None, "open() comes first"
        hidden = self._store.read(number, input_ids.device)
        if hidden is None:
            with torch.no_grad():
                hidden = self._lower(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            self._store.write(number, hidden)
            if not self._store.size.exact:  # the first epoch uses the rounded values, as all later ones do
                hidden = self._store.read(number, input_ids.device)
        extra = {TOKEN_IDS: input_ids} if self._needs_token_ids else {}
        last: Tensor = self._upper(inputs_embeds=hidden, attention_mask=attention_mask, **extra).last_hidden_state
        return last


class _Store:
    """All batches concatenated in one flat tensor, and which of them are written."""

    def __init__(self, room: Tensor, size: CacheSize) -> None:
        self._room, self.size = room, size
        lengths = [examples * longest * size.width for examples, longest in size.shapes]
        self._starts = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        self._written = [False] * len(lengths)

    def _place(self, number: int) -> Tensor:
        start, end = (int(place) for place in self._starts[number : number + 2])
        return self._room[start:end].view(*self.size.shapes[number], self.size.width)

    def read(self, number: int, device: torch.device) -> Tensor | None:
        """Return a copy of a batch, which may be modified; None if it is not written yet."""
        if not self._written[number]:
            return None
        return self._place(number).to(device=device, dtype=self.size.stream, copy=True)

    def write(self, number: int, hidden: Tensor) -> None:
        assert hidden.dtype == self.size.stream, f"the stream is {hidden.dtype}, expected {self.size.stream}"
        place = self._place(number)
        assert place.shape == hidden.shape, f"batch {number} is {tuple(hidden.shape)}, expected {tuple(place.shape)}"
        place.copy_(hidden)
        self._written[number] = True


def memory_mapped(size: int, folder: Path) -> Tensor:
    """Return `size` bytes of a memory-mapped temporary file. It has no name, so it vanishes however the process ends.

    Raises:
        StorageError: the folder's disk has not enough free space, or no file can be created.
    """
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if size > shutil.disk_usage(folder).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # not on macOS; without it a full disk causes a crash later
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="r+", shape=(size,)))


def _size(size: int) -> str:
    return f"{size / _GIB:,.2f} GiB" if size >= _GIB else f"{size / _MIB:,.1f} MiB"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
