"""The counts of `counts.count_parts` in one compiled pass on the CPU, three nanoseconds a pair.

Array operations read a block of cosines from memory a dozen times; here some hundred pairs at a time are prepared by
vector instructions, then counted while they are in the first-level cache. Each thread takes whole blocks, product and
count, into counts of its own: a product on all of torch's threads would leave them spinning while the count runs.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import no_type_check

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modulant.geometry.products import products
from modulant.lexicon.compiled import compiled
from modulant.metrics.functional.counts import Bins, Counts
from modulant.metrics.functional.pairs import Layout

_CHUNK = 512
_WAYS = 4  # neighbours are often of one class: sums of their own spare each pair the wait for the one before


def count_blocks(
    unit: Tensor,
    distances: NDArray[np.uint8],
    classes: int,
    layout: Layout,
    blocks: Iterator[tuple[int, int]],
    bins: Bins,
) -> Counts:
    """Counts the pairs of some blocks of rows, each with all later rows, on as many threads as torch has.

    The bits are the same on any number of threads.

    Args:
        unit: (P, D) unit vectors in fp32, in the order of the layout.
        distances: (P, P) classes of all pairs.
        classes: number of classes.
        layout: of the rows.
        blocks: some of the layout's.
        bins: of the histograms.
    """
    count = np.int32 if len(unit) ** 2 < 2**32 else np.int64  # of one bin, at most all pairs
    lock = Lock()

    def work() -> tuple[NDArray[np.integer], NDArray[np.int64]]:
        histograms = np.zeros((layout.n_cells, classes, bins.n), count)
        sums = np.zeros((layout.n_cells, _WAYS, classes, 2), np.int64)
        torch.set_num_threads(1)  # of the products; a new thread begins with as many as there are cores
        while True:
            with lock:
                block = next(blocks, None)
            if block is None:
                return histograms, sums.sum(1)
            first, last = block
            cosines = products(unit[first:last], unit[first:])
            for start, stop, cell in layout.segments(first):  # one histogram at a time, which stays in the cache
                _count_pairs(cosines.numpy(), distances, first, start, stop, *bins[1:], histograms[cell], sums[cell])

    threads = torch.get_num_threads()
    if threads == 1:
        found = [work()]
    else:
        with _one_thread_each(threads), ThreadPoolExecutor(threads) as pool:
            found = [job.result() for job in [pool.submit(work) for _ in range(threads)]]
    histograms = np.zeros((layout.n_cells, classes, bins.n), np.int64)
    sums = np.zeros((layout.n_cells, classes, 2), np.int64)
    for some, some_sums in found:
        histograms += some
        sums += some_sums
    return Counts(*(torch.from_numpy(counts) for counts in (histograms, sums[..., 0], sums[..., 1])))


@contextmanager
def _one_thread_each(threads: int) -> Iterator[None]:
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@compiled
@no_type_check  # numba reads the code: jaxtyping must not wrap it
def _count_pairs(
    cosines: NDArray[np.float32],
    distances: NDArray[np.uint8],
    first: int,
    start: int,
    stop: int,
    centre: float,
    width: float,
    histograms: NDArray[np.int32],
    sums: NDArray[np.int64],
) -> None:
    """Adds the pairs of some rows with later points of one cell to this thread's counts.

    Args:
        cosines: (rows, columns), finite.
        distances: (P, P), classes.
        first: row and column of the matrix of all pairs at which the cosines begin.
        start, stop: columns of that matrix that are counted, right of the diagonal.
        centre, width: a cosine c falls into bin ⌊(1 + x / (width + |x|)) bins / 2⌋, x = c − centre, in fp32.
        histograms: (classes, bins).
        sums: (ways, classes, 2): cosines in steps of 2⁻²⁴, and their squares in steps of 2⁻³⁰; over all ways together.
    """
    bins = np.uint32(histograms.shape[1])
    middle, scale = np.float32(centre), np.float32(width)
    half, one, steps = np.float32(histograms.shape[1] / 2), np.float32(1), np.float32(2.0**24)
    histogram = histograms.reshape(-1)
    keys = np.empty(_CHUNK, np.uint32)
    fixed = np.empty(_CHUNK, np.int32)
    squares = np.empty(_CHUNK, np.int32)
    for r in range(cosines.shape[0]):
        at = max(start, first + r + 1)
        while at < stop:
            n = min(_CHUNK, stop - at)
            c, kind = cosines[r, at - first : at - first + n], distances[first + r, at : at + n]
            for k in range(n):
                x = c[k] - middle
                keys[k] = np.uint32(kind[k]) * bins + np.uint32(np.int32((x / (scale + abs(x)) + one) * half))
            for k in range(n):
                f = np.int32(np.rint(c[k] * steps))
                fixed[k] = f
                squares[k] = (np.int64(f) * np.int64(f) + 2**17) >> 18
            for k in range(n):
                histogram[keys[k]] += 1
            whole = n // _WAYS * _WAYS
            for k in range(0, whole, _WAYS):
                for way in range(_WAYS):
                    sums[way, kind[k + way], 0] += fixed[k + way]
                    sums[way, kind[k + way], 1] += squares[k + way]
            for k in range(whole, n):
                sums[0, kind[k], 0] += fixed[k]
                sums[0, kind[k], 1] += squares[k]
            at += n
