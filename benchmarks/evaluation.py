"""What an evaluation of relational alignment costs beside its cosine products alone, and beside the unfused plain way.

The products are those that the evaluation itself performs: the same blocks of rows with all later points, into the same
kind of buffer, on the same threads; about half of the full matrix. The plain way makes the whole matrix of cosines and
takes both correlations over all pairs by NumPy and SciPy. Parity: Pearson against NumPy in float64 over all pairs,
Spearman against SciPy. Repeats are interleaved, so a busy moment of the machine meets both alike.
"""

from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from benchmarks.harness import Row, interleaved, ratio
from modulant.metrics import RelationalAlignment
from modulant.metrics.functional.pairs import PAIRS_PER_BLOCK, row_blocks

SHAPES = ((8402, 512), (8693, 128))  # T5-small's population and width, mini's
ASKED = 1.6
TOLERANCE = 1e-6
ABOUT = "One relational evaluation over all pairs, beside its own cosine products and beside NumPy and SciPy."


def population(n: int, dim: int) -> tuple[Tensor, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Points with a crowd of cosines as real ones have, path lengths that follow them a little, a tenth held out."""
    rng = np.random.default_rng(0)
    points = rng.normal(0.1, 1, (n, dim)).astype(np.float32) * np.exp(-np.arange(dim, dtype=np.float32) / (dim / 4))
    near = points[:, :8] @ points[:, :8].T
    noise = rng.normal(0, 3, (n, n)).astype(np.float32)
    distances = np.clip(11 - near / near.std() + noise, 1, 24).round().astype(np.uint8)
    distances = np.triu(distances, 1)
    return torch.from_numpy(points), distances + distances.T, rng.random(n) < 0.1


def products(points: Tensor, n_train: int) -> None:
    """The cosine products of an evaluation and nothing else."""
    unit = torch.nn.functional.normalize(points, dim=-1)
    n = len(unit)
    buffer = unit.new_empty(max(PAIRS_PER_BLOCK, n))
    for first, last in row_blocks((n_train, n)):
        shape = last - first, n - first
        torch.mm(unit[first:last], unit[first:].mT, out=buffer[: shape[0] * shape[1]].view(shape))


def unfused(points: Tensor, distances: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Pearson and Spearman over all pairs at once, in float64."""
    unit = torch.nn.functional.normalize(points.double(), dim=-1)
    i, j = np.triu_indices(len(unit), 1)
    cosines = (unit @ unit.mT).numpy()[i, j]
    similarity = 1 / (1 + distances[i, j].astype(np.float64))
    pearson = float(np.corrcoef(similarity, cosines)[0, 1])
    return pearson, float(np.corrcoef(rankdata(similarity), rankdata(cosines))[0, 1])


def run(quick: bool = False) -> list[Row]:
    """Rows of the table; `ratio` of the first of a shape is ours / products, of the second unfused / ours."""
    rows: list[Row] = []
    for n, dim in ((2000, 128),) if quick else SHAPES:
        points, distances, held_out = population(n, dim)
        metric = RelationalAlignment(distances, held_out)
        found: dict[str, Tensor] = {}

        def evaluate(metric: RelationalAlignment = metric, points: Tensor = points, found: Any = found) -> None:
            metric.reset()
            metric.update(points)
            found.update(metric.compute())

        ways: dict[str, Callable[[], object]] = {
            "ours": evaluate,
            "products": partial(products, points, int((~held_out).sum())),
        }
        seconds = interleaved(ways, 3 if quick else 9)  # the first turn, not timed, compiles
        start = perf_counter()
        pearson, spearman = unfused(points, distances)
        old = perf_counter() - start
        errors = abs(found["pearson"].item() - pearson), abs(found["spearman"].item() - spearman)
        verdict = "equal" if max(errors) <= TOLERANCE else "differ"
        common = {
            "ours": f"{median(seconds['ours']):.3f} s",
            "parity": f"{verdict}: Pearson to {errors[0]:.0e}, Spearman to {errors[1]:.0e}",
        }
        what = f"evaluation, {n:,} × {dim}, all pairs, {torch.get_num_threads()} threads"
        rows.append(
            {
                "what": f"{what}, beside its cosine products",
                "plain": f"{median(seconds['products']):.3f} s",
                "ratio": str(ratio(seconds["ours"], seconds["products"])),
                "asked": f"<= {ASKED}" if (n, dim) == SHAPES[0] else "",
                **common,
            }
        )
        rows.append(
            {
                "what": f"{what}, beside NumPy and SciPy unfused",
                "plain": f"{old:.1f} s",
                "ratio": f"{old / median(seconds['ours']):.0f}",
                "asked": "",
                **common,
            }
        )
    return rows
