"""Pairs counted on the CPU in one pass: class and cosine → a histogram and fixed-point sums, three nanoseconds a pair.

Array operations read a block of cosines from memory a dozen times; here some hundred pairs at a time are prepared by
vector instructions, then dealt out while they are in the first cache. The loop holds no lock: threads work side by
side, each with counts of its own.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import no_type_check

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

_CHUNK = 512
_MOST_PAIRS = 2**30  # in a count of 32 bits


class PairCounts:
    """Counts of pairs by population, class and bin, and sums of their cosines, on as many threads as torch has.

    Args:
        distances: (P, P) classes of all pairs, training rows first.
        classes, bins: their numbers.
        centre, width: of the bins, see `count_pairs`.
    """

    def __init__(self, distances: NDArray[np.uint8], classes: int, bins: int, centre: float, width: float) -> None:
        shape = (3, classes, bins)  # of populations train, mixed and held-out
        threads = torch.get_num_threads()
        self._distances, self._bins = distances, (centre, width)
        self._histograms = np.zeros((threads, *shape), np.int32)
        self._sums = np.zeros((threads, *shape[:2], 2), np.int64)
        self._full = np.zeros(shape, np.int64)
        self._since = 0
        self._pool = ThreadPoolExecutor(threads - 1) if threads > 1 else None

    def __enter__(self) -> "PairCounts":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def add(self, cosines: NDArray[np.float32], first: int, n_train: int) -> None:
        """Counts the pairs i < j of rows [first, first + rows), all of one kind, with the columns from `first` on."""
        self._since += cosines.size
        if self._since > _MOST_PAIRS:
            self._full += self._histograms.sum(0, dtype=np.int64)
            self._histograms[:] = 0
            self._since = cosines.size
        # Training rows: train pairs up to column n_train, mixed ones beyond. Held-out rows: held-out pairs throughout.
        populations = slice(0, 2) if first < n_train else slice(1, 3)
        cuts = np.linspace(0, len(cosines), len(self._sums) + 1).astype(int)
        jobs = []
        for t in reversed(range(len(self._sums))):
            rows = cosines[cuts[t] : cuts[t + 1]]
            counts = self._histograms[t, populations], self._sums[t, populations]
            count = partial(
                count_pairs, rows, self._distances, first + int(cuts[t]), first, n_train, *self._bins, *counts
            )
            if t > 0 and self._pool is not None:
                jobs.append(self._pool.submit(count))
            else:
                count()
        for job in jobs:
            job.result()

    def total(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Histograms (populations, classes, bins), then sums of cosines and of squares (populations, classes)."""
        sums = self._sums.sum(0)
        return self._full + self._histograms.sum(0, dtype=np.int64), sums[..., 0], sums[..., 1]


@njit(nogil=True, cache=True, error_model="numpy")
@no_type_check  # numba reads the code: jaxtyping must not wrap it
def count_pairs(
    cosines: NDArray[np.float32],
    distances: NDArray[np.uint8],
    row: int,
    column: int,
    split: int,
    centre: float,
    width: float,
    histograms: NDArray[np.int32],
    sums: NDArray[np.int64],
) -> None:
    """Adds the pairs of some rows, each with all later points, to counts that no other thread writes to.

    Args:
        cosines: (rows, columns), finite.
        distances: (P, P), classes.
        row, column: where in the matrix of all pairs the cosines begin.
        split: columns of that matrix from here on belong to the second population.
        centre, width: a cosine c falls into bin ⌊(1 + x / (width + |x|)) bins / 2⌋, x = c − centre, in fp32.
        histograms: (2 populations, classes, bins).
        sums: (2 populations, classes, 2): cosines in steps of 2⁻²⁴, and their squares in steps of 2⁻³⁰.
    """
    bins = np.uint32(histograms.shape[2])
    middle, scale = np.float32(centre), np.float32(width)
    half, one, steps = np.float32(histograms.shape[2] / 2), np.float32(1), np.float32(2.0**24)
    keys = np.empty(_CHUNK, np.uint32)
    fixed = np.empty(_CHUNK, np.int32)
    squares = np.empty(_CHUNK, np.int32)
    for r in range(cosines.shape[0]):
        start = row + r + 1
        for population in range(2):
            histogram, total = histograms[population].reshape(-1), sums[population]
            end = min(split, distances.shape[1]) if population == 0 else distances.shape[1]
            while start < end:
                n = min(_CHUNK, end - start)
                c, kind = cosines[r, start - column : start - column + n], distances[row + r, start : start + n]
                for k in range(n):
                    x = c[k] - middle
                    keys[k] = np.uint32(kind[k]) * bins + np.uint32(np.int32((x / (scale + abs(x)) + one) * half))
                for k in range(n):
                    f = np.int32(np.rint(c[k] * steps))
                    fixed[k] = f
                    squares[k] = (np.int64(f) * np.int64(f) + 2**17) >> 18
                for k in range(n):
                    histogram[keys[k]] += 1
                    total[kind[k], 0] += fixed[k]
                    total[kind[k], 1] += squares[k]
                start += n
