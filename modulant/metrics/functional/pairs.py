"""Which pairs i < j of a population are compared: all of them in blocks of rows, or a seeded sample.

Points are ordered with training ones first, so a block of rows meets at most two populations, split at one column.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

POPULATIONS = ("train", "mixed", "held_out")  # of pairs: both ends, one or none of them in the training set
PAIRS_PER_BLOCK = 2**21


def row_blocks(n: int, n_train: int) -> Iterator[tuple[int, int]]:
    """Rows [first, last) of about `PAIRS_PER_BLOCK` entries with the columns from `first` on.

    No block crosses `n_train`: its rows are all training or all held out, and its columns change kind once.

    >>> list(row_blocks(5, 3))
    [(0, 3), (3, 5)]
    """
    first = 0
    while first < n:
        end = n_train if first < n_train else n
        last = min(first + max(1, PAIRS_PER_BLOCK // (n - first)), end)
        yield first, last
        first = last


def sampled_pairs(n: int, pairs: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A seeded sample of distinct pairs j < i of n points in ascending order; all of them if there are fewer.

    A pair's number is i (i − 1) / 2 + j; numbers are drawn without replacement.

    >>> [ends.tolist() for ends in sampled_pairs(3, 10, seed=0)]
    [[1, 2, 2], [0, 0, 1]]
    """
    total = n * (n - 1) // 2
    chosen = np.sort(np.random.default_rng(seed).choice(total, size=min(pairs, total), replace=False))
    i = ((1 + np.sqrt(1 + 8 * chosen.astype(np.float64))) / 2).astype(np.int64)
    # The root is rounded: at most one off.
    i -= i * (i - 1) // 2 > chosen
    i += (i + 1) * i // 2 <= chosen
    return i, chosen - i * (i - 1) // 2


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Full fp32 in matrix products whatever the run's settings, and permission for atomic additions.

    Deterministic mode forbids these on CUDA because sums of floats depend on their order; sums of integers do not.
    """
    precision = torch.get_float32_matmul_precision()
    forbidden = device.type == "cuda" and torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_float32_matmul_precision("highest")
    if forbidden:
        torch.use_deterministic_algorithms(False)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        if forbidden:
            torch.use_deterministic_algorithms(True, warn_only=warn_only)
