"""What an evaluation of relational alignment costs beside its cosine products alone, and beside the unfused plain way.

The products are those that the evaluation performs: the same blocks of rows with all later points, on the same threads;
about half of the full matrix; by torch, as a plain program has them, and by the library that the evaluation uses. The
plain way makes the whole matrix of cosines and takes both correlations over all pairs by NumPy and SciPy. Parity:
Pearson against NumPy in float64 over all pairs, Spearman against SciPy. Repeats are interleaved, so a busy moment of
the machine meets both alike.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.loops.fit_loop import _FitLoop
from scipy.stats import rankdata
from torch import Tensor

from benchmarks.harness import ROOT, Row, interleaved, ratio
from modulant.geometry.products import products as by_onednn
from modulant.metrics import RelationalAlignment
from modulant.metrics.functional.pairs import PAIRS_PER_BLOCK, row_blocks

SHAPES = ((8402, 512), (8693, 128))  # T5-small's population and width, mini's
ASKED = {512: 1.6, 128: 2.5}
ASKED_SHARE = 0.05
STEPS_AN_EPOCH = 42  # of the default run, whose share is measured
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


def products(points: Tensor, n_train: int, by: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
    """The cosine products of an evaluation and nothing else: torch's own, or `by` another library."""
    unit = torch.nn.functional.normalize(points, dim=-1)
    n = len(unit)
    buffer = unit.new_empty(max(PAIRS_PER_BLOCK, n))
    for first, last in row_blocks((n_train, n)):
        shape = last - first, n - first
        if by is not None:
            by(unit[first:last], unit[first:])
            continue
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
            "own": partial(products, points, int((~held_out).sum()), by_onednn),
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
                "asked": f"<= {ASKED[dim]}",
                **common,
            }
        )
        rows.append(
            {
                "what": f"{what}, beside its cosine products by the same library",
                "plain": f"{median(seconds['own']):.3f} s",
                "ratio": str(ratio(seconds["ours"], seconds["own"])),
                "asked": f"<= {ASKED[dim]}",
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
    return rows if quick else [*rows, share()]


def share() -> Row:
    """The share of a default run, `field.yaml` on mini, that relational figures take.

    By a run of one epoch with two evaluations and the bootstrap, after one that has filled the cache: its figures
    before the first step, the first evaluation and the end as they are, its epoch and its second evaluation as often as
    the default run has them.
    """
    import train
    from callbacks import RelationalAlignment as Callback

    spent: dict[str, list[float]] = {}

    def timed(owner: type, name: str) -> Any:
        inner = getattr(owner, name)

        def outer(*arguments: Any, **options: Any) -> Any:
            began = perf_counter()
            try:
                return inner(*arguments, **options)
            finally:
                spent.setdefault(name, []).append(perf_counter() - began)

        return patch.object(owner, name, outer)

    config = yaml.safe_load((ROOT / "configs" / "field.yaml").read_text())["trainer"]
    words = [
        "fit",
        "--config",
        "field.yaml",
        "--trainer.max_steps",
        str(STEPS_AN_EPOCH),
        "--trainer.accelerator",
        "cpu",
    ]
    words += ["--trainer.check_val_every_n_epoch", "1", "--trainer.val_check_interval", str(STEPS_AN_EPOCH // 2)]
    for _ in range(2):
        spent.clear()
        with (
            tempfile.TemporaryDirectory() as folder,
            timed(Callback, "on_train_start"),
            timed(Callback, "on_validation_epoch_end"),
            timed(Callback, "on_train_end"),
            timed(_FitLoop, "advance"),
            timed(_EvaluationLoop, "run"),
        ):
            began = perf_counter()
            train.main([*words, "--output", folder])
            whole = perf_counter() - began
    more = config["max_epochs"] / config["check_val_every_n_epoch"] - 2
    epoch = sum(spent["advance"]) - sum(spent["run"])
    measured = ("on_train_start", "on_validation_epoch_end", "on_train_end")
    relational = sum(sum(spent[name]) for name in measured) + more * spent["on_validation_epoch_end"][-1]
    all_ = whole + more * spent["run"][-1] + (config["max_epochs"] - 1) * epoch
    return {
        "what": "relational figures of a default run (`field.yaml`, mini), its cache filled, beside all of it",
        "ours": f"{relational:.1f} s",
        "plain": f"{all_:.0f} s",
        "ratio": f"{relational / all_:.3f}",
        "asked": f"<= {ASKED_SHARE}",
    }
