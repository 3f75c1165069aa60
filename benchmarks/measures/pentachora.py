"""Pentachora of a cloud against two plain ways: a loop over draws, and a batch, of Cayley–Menger determinants.

All three start from the cloud and end at the CV. The batch takes our draws; the loop draws each five by itself, as a
loop does. The volumes' parity is checked against float64 determinants in the same run. Repeats are interleaved, so a
busy moment of the machine meets all alike.
"""

from functools import partial

import torch
from torch import Tensor

from benchmarks.harness import Row, interleaved, milliseconds, ratio
from modulant.geometry import pentachoron_cv, pentachoron_draws, pentachoron_volumes

SHAPES = ((8402, 512, 1000), (500, 512, 10_000), (500, 64, 10_000))  # points, dimensions, draws
ASKED = {"batched determinants": 20.0, "loop": 150.0}
TOLERANCE = 1e-6
ABOUT = "Volumes and CV of random pentachora, beside determinants."


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


def run(quick: bool = False) -> list[Row]:
    """Rows of the table; `ratio` is plain / ours, `parity` how far CV and volumes are from float64."""
    rows: list[Row] = []
    for n_points, dim, n in SHAPES[2:] if quick else SHAPES:
        points = torch.randn(n_points, dim, generator=torch.Generator().manual_seed(0))
        exact = torch.cat(
            [cayley_menger(points[draws].double()) for draws in pentachoron_draws(n_points, n, 42).split(500)]
        )
        error = float(((pentachoron_volumes(points, n).double() - exact).abs() / exact).max())
        reference = exact.std(correction=0) / exact.mean()
        error_cv = float((pentachoron_cv(points, n).double() / reference - 1).abs())
        ways = {"ours": pentachoron_cv, "batched determinants": by_batch, "loop": by_loop}
        seconds = interleaved({name: partial(way, points, n) for name, way in ways.items()}, 3 if quick else 7)
        shape = f"{n_points:,} × {dim}, {n:,} draws"
        parity = "equal" if max(error, error_cv) <= TOLERANCE else "differ"
        parity += f": volumes to {error:.0e}, CV to {error_cv:.0e}"
        for name, asked in ASKED.items():
            rows.append(
                {
                    "what": f"pentachora, {shape}, against {name}",
                    "ours": milliseconds(seconds["ours"]),
                    "plain": milliseconds(seconds[name]),
                    "ratio": str(ratio(seconds[name], seconds["ours"])),
                    "asked": f">= {asked:.0f}",
                    "parity": parity,
                }
            )
    return rows
