"""Which pairs i < j are compared, all in blocks of rows or a sample, and the population and stratum of each.

Points are ordered in groups by part of the split and part of speech, so a block of rows of one group meets each
population and stratum in a few ranges of columns.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Shaped
from torch import Tensor

from modulant.lexicon.entries import TEST

# Of pairs: both ends trained on, ends in two parts, both ends held out (in the test part, where there is one). With a
# test part, a fourth population has both ends in validation.
POPULATIONS = ("train", "mixed", "held_out")
STRATA = ("nouns", "verbs")  # pairs within a part of speech; all other pairs are in neither
PAIRS_PER_BLOCK = 2**21

Flags = Shaped[np.ndarray, "points"] | Shaped[Tensor, "points"]  # bool, or integers from 0 to 2
Letters = Shaped[np.ndarray, "points"]  # n, v, a, s, r


class Layout:
    """Order and groups of points, by which any rectangle of pairs of two groups is of one population and stratum.

    The pairs of a population and a stratum are a *cell*; populations, strata and all pairs are unions of cells.

    Args:
        part: of each point, 0 training, 1 validation, 2 test; flags say which points are held out.
        pos: part of speech of each point, as WordNet's letters; without it there are no strata.

    Attributes:
        order: (P,) points by part, then nouns, verbs and others, each in the order given.
        ends: row after each group of ordered points.
        cells: (groups, groups), the cell of the pairs of two groups.
        parts: for each part, the ordered rows of its points, in the order given.
        strata: the same for nouns and verbs, over all parts.
        columns: name → cells: "all", each population, then "nouns", "train/nouns", …, and the same of verbs.

    >>> layout = Layout(np.array([True, False, False]), np.array(["n", "v", "n"]))
    >>> layout.order, layout.ends
    (array([2, 1, 0]), (1, 2, 2, 3, 3, 3))
    >>> list(layout.columns)[:6]
    ['all', 'train', 'mixed', 'held_out', 'nouns', 'train/nouns']
    """

    def __init__(self, part: Flags, pos: Letters | None = None) -> None:
        parts = np.asarray(part).astype(np.int64)
        tested = bool((parts == TEST).any())
        n_parts = 3 if tested else 2
        kinds, n_kinds = np.zeros_like(parts), 1
        if pos is not None:
            assert len(pos) == len(parts), f"{len(pos)} parts of speech for {len(parts)} points"
            kinds, n_kinds = np.select([pos == "n", pos == "v"], [0, 1], 2), len(STRATA) + 1
        self.order = np.lexsort((kinds, parts))
        groups = np.bincount(parts * n_kinds + kinds, minlength=n_parts * n_kinds)
        self.ends = tuple(int(end) for end in np.cumsum(groups))
        place = np.argsort(self.order)
        self.parts = [place[parts == value] for value in range(n_parts)]
        self.strata = [place[kinds == kind] for kind in range(n_kinds - 1)]
        populations = (*POPULATIONS, "validation") if tested else POPULATIONS
        of_part = (0, 3, 2) if tested else (0, 2)  # population of the pairs within a part
        part_of, kind_of = np.divmod(np.arange(n_parts * n_kinds), n_kinds)
        population = np.where(part_of[:, None] == part_of, np.array(of_part)[part_of], POPULATIONS.index("mixed"))
        stratum = np.where(kind_of[:, None] == kind_of, kind_of, n_kinds - 1)
        self.cells = population * n_kinds + stratum
        self.n_cells = len(populations) * n_kinds
        self.columns = {"all": list(range(self.n_cells))}
        for p, name in enumerate(populations):
            self.columns[name] = list(range(p * n_kinds, (p + 1) * n_kinds))
        for k, name in enumerate(STRATA[: n_kinds - 1]):
            self.columns[name] = list(range(k, self.n_cells, n_kinds))
            self.columns |= {f"{population}/{name}": [p * n_kinds + k] for p, population in enumerate(populations)}

    def __len__(self) -> int:
        return len(self.order)

    @property
    def by_part(self) -> npt.NDArray[np.int64]:
        """Ordered rows by part alone, each part in the order given."""
        return np.concatenate(self.parts)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """`row_blocks` of the groups."""
        return row_blocks(self.ends)

    def segments(self, first: int) -> list[tuple[int, int, int]]:
        """Columns from a block's first row on, as (start, stop, cell).

        >>> Layout(np.array([False, False, True])).segments(0)
        [(0, 2, 0), (2, 3, 1)]
        """
        row = int(np.searchsorted(self.ends, first, side="right"))
        found: list[tuple[int, int, int]] = []
        start = first
        for stop, cell in zip(self.ends[row:], self.cells[row, row:].tolist(), strict=True):
            if found and found[-1][2] == cell:
                found[-1] = (found[-1][0], stop, cell)
            elif stop > start:
                found.append((start, stop, cell))
            start = stop
        return found


def row_blocks(ends: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Rows [first, last) of about `PAIRS_PER_BLOCK` entries with the columns from `first` on.

    Args:
        ends: of the groups of rows; no block crosses one.

    >>> list(row_blocks((3, 5)))
    [(0, 3), (3, 5)]
    """
    first, n = 0, ends[-1]
    for end in ends:
        while first < end:
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
