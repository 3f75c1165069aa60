"""How unequal the pentachora of a cloud are, compared with Gaussian clouds of the same shape."""

from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from modulant.geometry import (
    BINS,
    coefficient_of_variation,
    gaussian_null_volumes,
    pentachoron_volumes,
    relative_volume_histogram,
)
from modulant.settings import Interval, Seed, checked

Several = Annotated[int, Interval(minimum=2)]  # a standard deviation needs two


class PentachoronCV(Metric):
    """CV of pentachoron volumes over seeded draws, and its z-score against Gaussian clouds.

    Several clouds are pooled. Ranks that hold the same cloud count it once each, which changes no figure.

    Args:
        n: number of draws of five points.
        seed: seed of the draws, the same at each check.
        null_repeats: number of Gaussian clouds.
    """

    full_state_update = False
    is_differentiable = False
    volumes: Tensor
    squares: Tensor
    draws: Tensor
    null: Tensor  # (null_repeats,)
    histogram: Tensor  # (bins,)
    null_histogram: Tensor  # (bins,)
    updates: Tensor

    @checked
    def __init__(self, n: Several = 1000, seed: Seed = 42, null_repeats: Several = 20, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n, self.seed, self.null_repeats = n, seed, null_repeats
        for name in ("volumes", "squares", "draws", "updates"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("null", torch.zeros(null_repeats, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("histogram", "null_histogram"):
            self.add_state(name, torch.zeros(BINS, dtype=torch.float64), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, points: Float[Tensor, "points dim"]) -> None:
        """Adds a cloud of at least five points."""
        volumes = pentachoron_volumes(points, self.n, self.seed).to(self.volumes)
        self.volumes += volumes.sum()
        self.squares += volumes.square().sum()
        self.draws += len(volumes)
        self.histogram += relative_volume_histogram(volumes)
        for repeat, null in enumerate(gaussian_null_volumes(points, self.n, self.seed, self.null_repeats)):
            self.null[repeat] += coefficient_of_variation(null).to(self.null)
            self.null_histogram += relative_volume_histogram(null).to(self.null)
        self.updates += 1

    def compute(self) -> dict[str, Tensor]:
        """``cv``; ``null_mean``, ``null_sd`` of the Gaussian clouds' CVs; ``z`` = (cv − mean) / sd; ``mean_volume``.

        ``histogram`` and ``null_histogram`` (bins,): shares of the volumes over their cloud's mean, in bins of
        `geometry.BIN_WIDTH`.
        """
        mean = self.volumes / self.draws
        cv = (self.squares / self.draws - mean.square()).clamp_min(0).sqrt() / mean
        null = self.null / self.updates
        null_mean, null_sd = null.mean(), null.std(correction=1)
        z = (cv - null_mean) / null_sd
        figures = {"cv": cv, "null_mean": null_mean, "null_sd": null_sd, "z": z, "mean_volume": mean}
        histograms = {"histogram": self.histogram, "null_histogram": self.null_histogram}
        return figures | {name: counts / counts.sum().clamp_min(1) for name, counts in histograms.items()}
