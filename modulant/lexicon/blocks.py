"""A relation between all pairs of some synsets: as one matrix, or as a stream of column blocks in bounded memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

MAX_BYTES = 1 << 28  # of a stream of blocks

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Blocks(Generic[Number]):
    """``fill(columns, out)`` writes the relation of all ``ids`` to some of them, ``columns``, into ``out``."""

    ids: npt.NDArray[np.int64]
    dtype: type[Number]
    fill: Callable[[npt.NDArray[np.int64], npt.NDArray[Number]], None]
    scratch: int  # bytes that `fill` needs in addition

    def whole(self) -> npt.NDArray[Number]:
        """The (n, n) matrix."""
        matrix = np.empty((len(self.ids), len(self.ids)), self.dtype)
        self.fill(self.ids, matrix)
        return matrix

    def stream(self, max_bytes: int) -> Iterator[tuple[slice, npt.NDArray[Number]]]:
        """(columns, block (n, columns)) from left to right, each block a new array.

        Memory for two blocks is counted: while one is filled, the caller's loop still holds the one before.

        Raises:
            ValueError: ``max_bytes`` is too little for one column.
        """
        column = 2 * len(self.ids) * np.dtype(self.dtype).itemsize
        width = (max_bytes - self.scratch) // max(column, 1)
        if width < 1 and len(self.ids):
            least = self.scratch + column
            raise ValueError(f"max_bytes is {max_bytes}; {len(self.ids)} synsets need {least} or more")
        return self._blocks(width)

    def _blocks(self, width: int) -> Iterator[tuple[slice, npt.NDArray[Number]]]:
        for first in range(0, len(self.ids), max(width, 1)):
            columns = slice(first, min(first + width, len(self.ids)))
            yield columns, self._block(columns)

    def _block(self, columns: slice) -> npt.NDArray[Number]:
        part = self.ids[columns]
        block = np.empty((len(self.ids), len(part)), self.dtype)
        self.fill(part, block)
        return block
