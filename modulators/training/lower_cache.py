"""What the frozen blocks below the lowest trained one make of each training batch, computed once a run.

Whether an entry's hidden states are the same bits in another batch depends on the batch's size and width: matrix
products and attention take other paths by shape (on a CPU: attention by the width in steps of 16, products of few rows,
threads). So it is whole batches that are kept, padding included, and batches keep their members over the run: what is
read is the very tensor that this batch has given, on any device and by any kernel that repeats itself. A batch is
computed when it is first trained on, so nothing is waited for, and a run that is resumed fills the cache anew.
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

from modulant.backbones.split_encoder import TOKEN_IDS, lower_half, upper_half
from modulant.storage import storing
from modulators.arguments import CachePlace, StoredDtype

_GIB, _MIB = 2**30, 2**20
Shape = tuple[int, int]  # of a batch: examples, tokens of the longest


@dataclass(frozen=True)
class Caching:
    """What a user asks of it.

    Attributes:
        where: ``memory``, that of the model's device, or ``disk``, a memory-mapped file; None keeps nothing.
        dtype: what is kept; None is the stream's own, which alone is exact.
        limit_gib: the most that a process may keep.
        folder: where the file goes; None is the run folder.
    """

    where: CachePlace | None
    dtype: StoredDtype | None
    limit_gib: float
    folder: str | None


@dataclass(frozen=True)
class CacheSize:
    """What a process keeps.

    Attributes:
        below: the lowest block that something is attached to.
        shapes: of its batches.
        width: of the stream.
        stream: the stream's dtype.
        kept: the dtype that is kept.
    """

    below: int
    shapes: Sequence[Shape]
    width: int
    stream: torch.dtype
    kept: torch.dtype

    @classmethod
    def of(cls, caching: Caching, below: int, shapes: Sequence[Shape], width: int, stream: torch.dtype) -> "CacheSize":
        return cls(below, shapes, width, stream, getattr(torch, caching.dtype) if caching.dtype else stream)

    @property
    def exact(self) -> bool:
        """Whether the stream's values survive."""
        return torch.promote_types(self.stream, self.kept) == self.kept

    @property
    def tokens(self) -> int:
        """Padding included."""
        return sum(examples * longest for examples, longest in self.shapes)

    @property
    def bytes(self) -> int:
        return self.tokens * self.width * self.kept.itemsize

    def told(self, where: str) -> str:
        """In one line.

        Args:
            where: it is kept.
        """
        layers = "layer 0" if self.below == 1 else f"layers 0–{self.below - 1}"
        examples = sum(shape[0] for shape in self.shapes)
        rounded = "" if self.exact else f"; rounded from {_name(self.stream)}, so not exact"
        return (
            f"{layers} of {examples:,} entries: {self.tokens:,} tokens × {self.width} × {self.kept.itemsize} bytes = "
            f"{_size(self.bytes)}, {where}{rounded}"
        )

    def check(self, limit_gib: float) -> None:
        """Raises:
        ValueError: it is more than is allowed.
        """
        if self.bytes > limit_gib * _GIB:
            half = "" if self.kept == torch.bfloat16 else ", keep half of it (model.cache_dtype: bfloat16, rounded)"
            raise ValueError(
                f"model.cache_limit_gib is {limit_gib:g}, and what is to be cached takes {_size(self.bytes)} a process "
                f"({self.tokens:,} tokens × {self.width} × {self.kept.itemsize} bytes); raise it{half}, or set "
                "model.cache to null"
            )


class LowerCache:
    """An encoder that computes its lower blocks once for each batch.

    Args:
        caching: what is asked.
        encoder: with all that is attached to it.
        below: the lowest block that something is attached to; at least 1.
        compile: compile the upper half with torch.compile.
        tells_tokens: whether what is attached takes token ids (`modulators.hooks`).
    """

    def __init__(self, caching: Caching, encoder: Any, below: int, compile: bool, tells_tokens: bool) -> None:
        self._caching, self._below, self._width = caching, below, encoder.config.d_model
        self._lower, self._upper = lower_half(encoder, below), upper_half(encoder, below)
        if compile:
            self._upper.compile(dynamic=True)
        self._tells_tokens = tells_tokens
        self._store: _Store | None = None
        self._described: dict[str, Any] = {}

    def size(self, shapes: Sequence[Shape], stream: torch.dtype) -> CacheSize:
        """What batches of these shapes take."""
        return CacheSize.of(self._caching, self._below, shapes, self._width, stream)

    def open(self, shapes: Sequence[Shape], device: torch.device, run: Path) -> str:
        """Make room for batches of these shapes, and say in one line how much.

        Args:
            device: the model's.
            run: the run folder.

        Raises:
            ValueError: more than the limit.
            StorageError: the disk has no room for it.
        """
        size = self.size(shapes, self._stream_dtype(device))
        size.check(self._caching.limit_gib)
        if self._caching.where == "disk":
            folder = Path(self._caching.folder or run)
            room, where = mapped(size.bytes, folder).view(size.kept), f"on disk ({folder})"
        else:
            room = torch.empty(size.tokens * size.width, dtype=size.kept, device=device)
            where = f"in memory ({device})"
        self._store = _Store(room, size)
        self._described = {"where": self._caching.where, "bytes": size.bytes, "exact": size.exact}
        return size.told(where)

    def close(self) -> None:
        """Give the room back."""
        self._store = None

    def describe(self) -> dict[str, Any]:
        """What the report says of it: where it was, bytes in this process, whether they are the stream's own."""
        return self._described

    @torch.no_grad()
    def _stream_dtype(self, device: torch.device) -> torch.dtype:
        """Of what block `below` reads, by a pass of one token: weights of several precisions may meet below it."""
        one = torch.ones(1, 1, dtype=torch.long, device=device)
        dtype: torch.dtype = self._lower(input_ids=one, attention_mask=one).last_hidden_state.dtype
        return dtype

    def __call__(self, number: int, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The encoder's last hidden state (B, S, D) for the run's batch of this number."""
        assert self._store is not None, "open() comes first"
        hidden = self._store.read(number, input_ids.device)
        if hidden is None:
            with torch.no_grad():
                hidden = self._lower(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            self._store.write(number, hidden)
            if not self._store.size.exact:  # what all later epochs will read
                hidden = self._store.read(number, input_ids.device)
        told = {TOKEN_IDS: input_ids} if self._tells_tokens else {}
        last: Tensor = self._upper(inputs_embeds=hidden, attention_mask=attention_mask, **told).last_hidden_state
        return last


class _Store:
    """Batches one behind the other in one flat tensor, and which of them are there."""

    def __init__(self, room: Tensor, size: CacheSize) -> None:
        self._room, self.size = room, size
        lengths = [examples * longest * size.width for examples, longest in size.shapes]
        self._starts = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        self._written = [False] * len(lengths)

    def _place(self, number: int) -> Tensor:
        start, end = (int(place) for place in self._starts[number : number + 2])
        return self._room[start:end].view(*self.size.shapes[number], self.size.width)

    def read(self, number: int, device: torch.device) -> Tensor | None:
        """A copy, which whoever reads it may write to; None for what was not written yet."""
        if not self._written[number]:
            return None
        return self._place(number).to(device=device, dtype=self.size.stream, copy=True)

    def write(self, number: int, hidden: Tensor) -> None:
        assert hidden.dtype == self.size.stream, f"the stream is {hidden.dtype}, and was {self.size.stream}"
        place = self._place(number)
        assert place.shape == hidden.shape, f"batch {number} is {tuple(hidden.shape)}, and was {tuple(place.shape)}"
        place.copy_(hidden)
        self._written[number] = True


def mapped(size: int, folder: Path) -> Tensor:
    """Bytes of a memory-mapped file. It has no name, so that nothing is left of it however the process ends.

    Raises:
        StorageError: the folder's disk has no room, or takes no file.
    """
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if size > shutil.disk_usage(folder).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # not on a Mac; without it a full disk would show as a crash, later
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="r+", shape=(size,)))


def _size(size: int) -> str:
    return f"{size / _GIB:,.2f} GiB" if size >= _GIB else f"{size / _MIB:,.1f} MiB"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
