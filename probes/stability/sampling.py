"""Relational figures over many seeded samples of pairs, for several clouds at once.

Ten million gathered dot products are slower than all thirty-five million in order: so the cosine matrix is made a block
of rows at a time, as one product, and each sample takes out of it what it drew there. The matrix is never held whole.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from modulant.lexicon.taxonomy import UNREACHABLE
from modulant.metrics.functional.pairs import sampled_pairs

_BLOCK = 2**23  # cosines held at once
_SAMPLED = 2**24  # pairs of a group of seeds, held at once for each cloud


def sample_figures(
    points: Mapping[str, Tensor], distances: npt.NDArray[np.uint8], seeds: Sequence[int], pairs: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Cloud → (seeds, 4): Pearson and Spearman of cosine with path similarity, gradient, mean cosine.

    Pairs without a path are left out, as they are everywhere.
    """
    unit = {cloud: torch.nn.functional.normalize(some.float(), dim=-1) for cloud, some in points.items()}
    at_once = max(1, _SAMPLED // pairs)
    found: dict[str, list[list[float]]] = {cloud: [] for cloud in points}
    for start in range(0, len(seeds), at_once):
        drawn = [sampled_pairs(len(distances), pairs, seed) for seed in seeds[start : start + at_once]]
        steps = [distances[i, j] for i, j in drawn]
        classes = [_Classes(step[step != UNREACHABLE]) for step in steps]
        for cloud, some in unit.items():
            for step, known, cosines in zip(steps, classes, _cosines(some, drawn), strict=True):
                found[cloud].append(known.figures(cosines[step != UNREACHABLE]))
    return {cloud: np.array(rows) for cloud, rows in found.items()}


class _Classes:
    """A sample's path similarities, and what each cloud's figures share of them."""

    def __init__(self, steps: npt.NDArray[np.uint8]) -> None:
        similarity = 1 / (1 + steps.astype(np.float64))
        self.steps = steps
        self.similarity = _standard(similarity)
        self.rank = _rank_of_steps(steps)
        self.near, self.far = similarity >= 0.25, similarity < 0.10

    def figures(self, cosines: npt.NDArray[np.float32]) -> list[float]:
        """In the order of `sample_figures`; NaN where nothing varies or nothing is near or far."""
        y = cosines.astype(np.float64)
        pearson = float(self.similarity @ _standard(y)) / len(y)
        return [pearson, self._spearman(cosines), _mean(y[self.near]) - _mean(y[self.far]), _mean(y)]

    def _spearman(self, cosines: npt.NDArray[np.float32]) -> float:
        """Exact, ties sharing their mean rank. Sorting plain integers is ten times as fast as an argsort."""
        bits = (cosines + np.float32(0)).view(np.int32)  # one zero, not two
        ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # integers in the order of the floats
        keys = np.sort((ascending.astype(np.int64) << 8) | self.steps)
        first = np.flatnonzero(np.diff(keys >> 8, prepend=np.iinfo(np.int64).min))
        ties = np.diff(first, append=len(keys))
        ranks = np.repeat(first + (ties - 1) / 2, ties)
        return float(_standard(self.rank[keys & 0xFF]) @ _standard(ranks)) / len(keys)


def _cosines(unit: Tensor, drawn: Sequence[tuple[Any, Any]]) -> list[npt.NDArray[np.float32]]:
    n = len(unit)
    rows = max(1, _BLOCK // n)
    found = [np.empty(len(i), dtype=np.float32) for i, _ in drawn]
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        block = (unit[start:stop] @ unit[:stop].mT).flatten().numpy()  # j < i: later columns are never drawn
        for cosines, (i, j) in zip(found, drawn, strict=True):
            here = slice(*np.searchsorted(i, (start, stop)))
            cosines[here] = block[(i[here] - start) * stop + j[here]]
    return found


def _standard(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean 0 and standard deviation 1; NaN where it does not vary."""
    x = x - x.mean()
    spread = x.std()
    return x / spread if spread > 0 else np.full_like(x, np.nan)


def _rank_of_steps(steps: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The mean rank of path similarity at each number of steps, by ascending similarity: few values, so a table."""
    counts = np.bincount(steps, minlength=256)[::-1]
    return (np.cumsum(counts) - (counts + 1) / 2)[::-1]


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")
