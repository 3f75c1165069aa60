"""Where tokens stand: positions, and segments that do not see each other (documents of a packed row, left padding)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor

from wavegpt.attention.cache import Cache
from wavegpt.attention.kernels import visible
from wavegpt.attention.phases import ladder, turned


@dataclass
class Places:
    """Of the tokens of one call.

    Attributes:
        positions: within their segment, (B, T) or (1, T).
        segments: numbers that are equal within a segment, (B, T); None: one segment.
        earlier: segments of the tokens in the cache, (B, S).
    """

    positions: Int[Tensor, "B T"]
    segments: Tensor | None = None
    earlier: Tensor | None = None
    _masks: dict[int, Tensor | None] = field(default_factory=dict)
    _angles: dict[tuple[str, int, float, torch.dtype], Tensor] = field(default_factory=dict)

    def ladder(self, waves: int, base: float, dtype: torch.dtype) -> Tensor:
        """Ω, (W,); this and what follows from it are the same in all layers, and cached."""
        return self._cached("ladder", waves, base, dtype, lambda: self._omega(waves, base).to(dtype))

    def angles(self, waves: int, base: float, dtype: torch.dtype) -> Tensor:
        """Ω t modulo 2π, (B, 1, T, W) or (1, 1, T, W)."""
        return self._cached(
            "angles", waves, base, dtype, lambda: turned(self.positions, self._omega(waves, base), dtype)[:, None]
        )

    def cos_sin(self, waves: int, base: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines of `angles`."""
        wide = torch.promote_types(dtype, torch.float32)
        angle = self.angles(waves, base, wide)
        return (
            self._cached("cos", waves, base, dtype, lambda: angle.cos().to(dtype)),
            self._cached("sin", waves, base, dtype, lambda: angle.sin().to(dtype)),
        )

    def _omega(self, waves: int, base: float) -> Tensor:
        return ladder(waves, base).to(self.positions.device)

    def _cached(self, name: str, waves: int, base: float, dtype: torch.dtype, make: Callable[[], Tensor]) -> Tensor:
        key = (name, waves, base, dtype)
        if key not in self._angles:
            self._angles[key] = make()
        return self._angles[key]

    def starts(self) -> Tensor | None:
        """Index of the first token of each token's segment, (B, T); None: one segment."""
        if self.segments is None:
            return None
        return torch.arange(self.positions.shape[1], device=self.positions.device) - self.positions

    def allowed(self, keys: int) -> Tensor | None:
        """Which of these keys, the last ones so far, each token sees, as `visible` has it; cached."""
        if keys not in self._masks:
            of_keys = self.segments
            if self.segments is not None and self.earlier is not None:
                of_keys = torch.cat([self.earlier, self.segments], dim=1)[:, -keys:]
            queries = self.positions.shape[-1]
            self._masks[keys] = visible(queries, keys, self.segments, of_keys, self.positions.device)
        return self._masks[keys]

    def in_last_segment(self) -> Tensor | None:
        """Which tokens are of the same segment as the last one, (B, 1, T, 1); None: all."""
        if self.segments is None:
            return None
        return (self.segments == self.segments[:, -1:])[:, None, :, None]


def places_of(ids: Tensor, segments: Tensor | None, cache: Cache | None) -> Places:
    """Places of a batch (B, T), after what a cache holds.

    Raises:
        ValueError: segments of another shape, or none although the cache has some.
    """
    T = ids.shape[1]
    if segments is not None and segments.shape != ids.shape:
        raise ValueError(f"segments have the shape {tuple(segments.shape)}; it must be that of ids, {tuple(ids.shape)}")
    steps = torch.arange(T, device=ids.device)[None]
    earlier = cache.segments if cache is not None else None
    if cache is not None and cache.next is not None:
        if (segments is None) != (earlier is None):
            raise ValueError("segments must be given at each call with a cache, or at none")
        if segments is not None and earlier is not None and bool((segments != earlier[:, -1:]).any()):
            raise ValueError("a call with a cache must continue the segment that it ended with")
        return Places(cache.next + steps, segments, earlier)
    if segments is None:
        return Places(steps)
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return Places(steps - torch.where(starts, steps, 0).cummax(1).values, segments)
