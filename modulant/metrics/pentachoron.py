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

    Of several clouds, the CVs and each null's are pooled as root mean squares: volumes count relative to their own
    cloud's mean, so clouds of any scale can be pooled. Ranks that hold the same cloud count it once each, which changes
    no figure.

    Args:
        n: number of draws of five points.
        seed: seed of the draws, the same at each check.
        null_repeats: number of Gaussian clouds.
    """

    full_state_update = False
    is_differentiable = False
    mean_volumes: Tensor
    squares: Tensor  # of the clouds' CVs
    null: Tensor  # (null_repeats,), squares too
    histogram: Tensor  # (bins,)
    null_histogram: Tensor  # (bins,)
    updates: Tensor

    @checked
    def __init__(self, n: Several = 1000, seed: Seed = 42, null_repeats: Several = 20, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n, self.seed, self.null_repeats = n, seed, null_repeats
        for name in ("mean_volumes", "squares", "updates"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("null", torch.zeros(null_repeats, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("histogram", "null_histogram"):
            self.add_state(name, torch.zeros(BINS, dtype=torch.float64), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, points: Float[Tensor, "points dim"]) -> None:
        """Adds a cloud of at least five points."""
        points = points.to(self.squares.device)  # the CPU for points on Apple's GPU, which has no fp64
        volumes = pentachoron_volumes(points, self.n, self.seed, torch.float64)
        self.mean_volumes += volumes.mean()
        self.squares += coefficient_of_variation(volumes).square()
        self.histogram += relative_volume_histogram(volumes)
        for repeat, null in enumerate(gaussian_null_volumes(points, self.n, self.seed, self.null_repeats)):
            self.null[repeat] += coefficient_of_variation(null).square()
            self.null_histogram += relative_volume_histogram(null)
        self.updates += 1

    def compute(self) -> dict[str, Tensor]:
        """``cv``; ``null_mean``, ``null_sd`` of the Gaussian clouds' CVs; ``z`` = (cv − mean) / sd; ``mean_volume``.

        NaN where every draw is flat.

        ``histogram`` and ``null_histogram`` (bins,): shares of the volumes over their cloud's mean, in bins of
        `geometry.BIN_WIDTH`.
        """
        mean, cv = self.mean_volumes / self.updates, (self.squares / self.updates).sqrt()
        null = (self.null / self.updates).sqrt()
        null_mean, null_sd = null.mean(), null.std(correction=1)
        z = (cv - null_mean) / null_sd
        figures = {"cv": cv, "null_mean": null_mean, "null_sd": null_sd, "z": z, "mean_volume": mean}
        histograms = {"histogram": self.histogram, "null_histogram": self.null_histogram}
        return figures | {name: counts / counts.sum().clamp_min(1) for name, counts in histograms.items()}
