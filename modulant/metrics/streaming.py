"""Walking all pairs i < j of a population in blocks of rows, training rows first, in products of full fp32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def row_blocks(n: int, n_train: int, pairs: int) -> Iterator[tuple[int, int]]:
    """Rows [first, last) of about `pairs` entries with the columns from `first` on; no block crosses `n_train`.

    So a block's rows are all training or all held out, and its columns change kind once.
    """
    first = 0
    while first < n:
        end = n_train if first < n_train else n
        last = min(first + max(1, pairs // (n - first)), end)
        yield first, last
        first = last


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Full fp32 in matrix products whatever the run's settings, and leave to use atomic additions.

    Deterministic mode forbids them on CUDA because sums of floats depend on their order; sums of integers do not.
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
