"""Pentachora of a cloud against two plain ways: a loop over draws, and a batch, of Cayley–Menger determinants.

All three start from the cloud and end at the CV. The batch takes our draws; the loop draws each five by itself, as a
loop does. The volumes' parity is checked against float64 determinants in the same run. Repeats are interleaved, so a
busy moment of the machine meets all alike.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import command
from modulant.geometry import pentachoron_cv, pentachoron_draws, pentachoron_volumes

SHAPES = ((8402, 512, 1000), (500, 512, 10_000), (500, 64, 10_000))  # points, dimensions, draws
ASKED_LOOP, ASKED_BATCH = 150.0, 20.0
TOLERANCE = 1e-6


def cayley_menger(corners: Tensor) -> Tensor:
    """Volumes of (..., 5, D) by the determinant of the bordered matrix of squared distances."""
    squared = (corners.unsqueeze(-2) - corners.unsqueeze(-3)).square().sum(-1)
    bordered = torch.ones(*squared.shape[:-2], 6, 6, dtype=squared.dtype)
    bordered[..., 0, 0] = 0
    bordered[..., 1:, 1:] = squared
    return (torch.linalg.det(bordered) / -9216).clamp_min(0).sqrt()


def by_batch(points: Tensor, n: int) -> Tensor:
    volumes = cayley_menger(points[pentachoron_draws(len(points), n, 42)])
    return volumes.std(correction=0) / volumes.mean()


def by_loop(points: Tensor, n: int) -> Tensor:
    volumes = torch.stack([cayley_menger(points[torch.randperm(len(points))[:5]]) for _ in range(n)])
    return volumes.std(correction=0) / volumes.mean()


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Rows of the table; `ratio` is plain / ours, `parity` how far CV and volumes are from float64."""
    rows: list[dict[str, Any]] = []
    for n_points, dim, n in SHAPES[2:] if quick else SHAPES:
        points = torch.randn(n_points, dim, generator=torch.Generator().manual_seed(0))
        exact = torch.cat(
            [cayley_menger(points[draws].double()) for draws in pentachoron_draws(n_points, n, 42).split(500)]
        )
        error = float(((pentachoron_volumes(points, n).double() - exact).abs() / exact).max())
        reference = exact.std(correction=0) / exact.mean()
        error_cv = float((pentachoron_cv(points, n).double() / reference - 1).abs())
        ways: list[Callable[[Tensor, int], Tensor]] = [pentachoron_cv, by_batch, by_loop]
        ours, batch, loop = interleaved(ways, points, n, 3 if quick else 7)
        shape = f"{n_points:,} × {dim}, {n:,} draws"
        parity = "equal" if max(error, error_cv) <= TOLERANCE else "differ"
        parity += f": volumes to {error:.0e}, CV to {error_cv:.0e}"
        for name, plain, asked in (("batched determinants", batch, ASKED_BATCH), ("loop", loop, ASKED_LOOP)):
            ratios = sorted(p / o for p, o in zip(plain, ours, strict=True))
            rows.append(
                {
                    "what": f"pentachora, {shape}, against {name}",
                    "ours": f"{1e3 * median(ours):.2f} ms",
                    "plain": f"{1e3 * median(plain):.1f} ms",
                    "ratio": f"{median(ratios):.1f} [{ratios[0]:.1f}, {ratios[-1]:.1f}]",
                    "asked": f">= {asked:.0f}",
                    "parity": parity,
                }
            )
    return rows


def interleaved(ways: list[Callable[[Tensor, int], Tensor]], points: Tensor, n: int, repeats: int) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(repeats):
        for way, seconds in zip(ways, times, strict=True):
            start = perf_counter()
            way(points, n)
            seconds.append(perf_counter() - start)
    return times


if __name__ == "__main__":
    sys.exit(command(run, __doc__))
