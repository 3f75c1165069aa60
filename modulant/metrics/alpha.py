"""Whether the injection strengths α have converged: the range of each over the last few checks, beside a random walk's.

A small range alone says little: at a small learning rate α cannot leave it, whatever the data. Steps of Adam are about
lr long wherever its gradient is noise, and move α by lr · dα/dθ: the sum of their squares over a window is the variance
of the random walk that α would be on if nothing held it. α rests where it stays closer than such a walk would.
"""

import math
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from modulant.settings import Interval, PositiveFloat, checked

_RARE, _LESS_RARE = 1e-4, 0.01  # shares of the walks that may stay as close; a run looks some hundred times
_FAR_CLOSER = 0.05  # of a walk's standard deviation
_WALKS = 10_000


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

    Where the walk is known, the same range may be what any walk has:

    >>> for alpha in (0.100, 0.105):
    ...     window.update(torch.full((6, 1), alpha), walk=torch.full((6, 1), 1e-5))
    >>> window.still, window.converged
    (True, False)
    """

    full_state_update = False
    is_differentiable = False
    snapshots: list[Tensor]
    walks: list[Tensor]

    @checked
    def __init__(self, window: Annotated[int, Interval(minimum=2)], tolerance: PositiveFloat, **kwargs: Any) -> None:
        super().__init__(sync_on_compute=False, **kwargs)
        self.window, self.tolerance = window, tolerance
        self.add_state("snapshots", [], dist_reduce_fx=None)
        self.add_state("walks", [], dist_reduce_fx=None)

    @torch.no_grad()
    def update(
        self, alphas: Float[Tensor, "layers experts"], walk: Float[Tensor, "layers experts"] | None = None
    ) -> None:
        """Adds a snapshot and drops the oldest beyond the window.

        Args:
            alphas: the snapshot.
            walk: Σ (lr · dα/dθ)² over the steps since the last one, the variance of a random walk of these; NaN where
                the steps of the optimizer have no such length. None asks for the tolerance alone.
        """
        if self.snapshots and self.snapshots[-1].shape != alphas.shape:  # a resumed run may modulate other layers
            self.reset()
        self.snapshots.append(alphas.detach().float().cpu().clone())
        self.walks.append(torch.full(alphas.shape, torch.inf) if walk is None else walk.detach().double().cpu().clone())
        del self.snapshots[: -self.window], self.walks[: -self.window]

    def compute(self) -> Float[Tensor, ""]:
        """Largest max − min of any one α over the snapshots in the window."""
        return self._ranges().max()

    @property
    def still(self) -> bool:
        """Whether the window is full and no α moved more than the tolerance."""
        return len(self.snapshots) == self.window and bool(self.compute() <= self.tolerance)

    @property
    def walk(self) -> float | None:
        """Standard deviation of the widest random walk that the window's steps could be; None where it is unknown."""
        sd = float(self._sd().max()) if len(self.walks) > 1 else math.nan
        return sd if math.isfinite(sd) else None

    @property
    def converged(self) -> bool:
        """Whether α is still, and closer together than a random walk of the same steps would be.

        1 of 10,000 walks with the steps that the optimizer could take is as close. As gradients may have become smaller
        than those that Adam remembers, so is 1 of 100 walks with the moves that α has made, in random directions,
        unless the range is below a twentieth of the first walks' sd. An α that cannot move does not count, but one must
        be able to.
        """
        if not self.still:  # also where an α is NaN
            return False
        sd, ranges = self._sd().flatten(), self._ranges().double().flatten()
        if bool(sd.isnan().any()):  # steps of unknown length: the moves alone decide
            return bool(self._share_as_close(int(ranges.argmax())) <= _LESS_RARE)
        if bool(sd.isinf().all()):  # `update` was given no walk: the tolerance alone decides
            return True
        if bool((sd == 0).all()):  # no α could move
            return False
        closeness = torch.where(sd > 0, ranges / sd, 0.0)
        widest = int(closeness.argmax())
        variances = torch.stack(self.walks[1:]).flatten(1)[:, widest]
        if bool(closeness[widest] > 1):  # as half of the walks; no need to draw them
            return False
        directions = torch.randn(_WALKS, len(variances), generator=torch.Generator().manual_seed(0))
        as_close = (_ranges_of(directions * variances.sqrt()) <= ranges[widest]).double().mean()
        if bool(as_close > _RARE):
            return False
        return bool(closeness[widest] <= _FAR_CLOSER) or bool(self._share_as_close(widest) <= _LESS_RARE)

    def _ranges(self) -> Tensor:
        held = torch.stack(self.snapshots)
        return held.amax(0) - held.amin(0)

    def _sd(self) -> Tensor:
        return torch.stack(self.walks[1:]).sum(0).sqrt()

    def _share_as_close(self, which: int) -> Tensor:
        """Of this α's own moves in random directions: the share that stays as close."""
        moves = torch.stack(self.snapshots).double().flatten(1)[:, which].diff()
        signs = torch.rand(_WALKS, len(moves), generator=torch.Generator().manual_seed(0)) < 0.5
        return (_ranges_of(torch.where(signs, moves, -moves)) <= _ranges_of(moves[None]) * (1 + 1e-6)).double().mean()


def _ranges_of(moves: Float[Tensor, "walks moves"]) -> Float[Tensor, "walks"]:
    places = moves.cumsum(1)
    return places.amax(1).clamp_min(0) - places.amin(1).clamp_max(0)
