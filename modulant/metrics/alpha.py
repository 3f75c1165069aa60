"""Whether the injection strengths α have converged: the range of each over the last few checks."""

from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from modulant.settings import Interval, PositiveFloat, checked


class AlphaWindow(Metric):
    """The last `window` snapshots of α. Every rank has the same α, so nothing is synchronised.

    Args:
        window: number of snapshots that must agree.
        tolerance: largest range of any α over the window that counts as converged.

    >>> window = AlphaWindow(window=2, tolerance=0.01)
    >>> for alpha in (0.100, 0.105):
    ...     window.update(torch.full((6, 1), alpha))
    >>> window.converged
    True
    """

    full_state_update = False
    is_differentiable = False
    snapshots: list[Tensor]

    @checked
    def __init__(self, window: Annotated[int, Interval(minimum=2)], tolerance: PositiveFloat, **kwargs: Any) -> None:
        super().__init__(sync_on_compute=False, **kwargs)
        self.window, self.tolerance = window, tolerance
        self.add_state("snapshots", [], dist_reduce_fx=None)

    @torch.no_grad()
    def update(self, alphas: Float[Tensor, "layers experts"]) -> None:
        """Adds a snapshot and drops the oldest beyond the window."""
        self.snapshots.append(alphas.detach().float().cpu().clone())
        del self.snapshots[: -self.window]

    def compute(self) -> Float[Tensor, ""]:
        """Largest max − min of any one α over the snapshots in the window."""
        held = torch.stack(self.snapshots)
        return (held.amax(0) - held.amin(0)).max()

    @property
    def converged(self) -> bool:
        """Whether the window is full and no α moved more than the tolerance."""
        return len(self.snapshots) == self.window and bool(self.compute() <= self.tolerance)
