"""What decoding keeps of earlier tokens, layer by layer: keys and values of the last `context` tokens, or a state.

Key caches hold features as attention computed them, positions included, so that a window that moves re-indexes nothing.
It is exact for arms that depend on distances alone; for `evolved` phases positions stay absolute. Linear arms have a
state of constant size and no window.
"""

import torch
from torch import Tensor

from wavegpt.attention.linear import add_to_state


class KeyCache:
    """Key features and values of the last `window` tokens.

    Attributes:
        running: Σ ω of the tokens so far modulo 2π, (B, H, 1, W); of `integrated` phases.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.running: Tensor | None = None
        self._parts: tuple[Tensor, ...] = ()  # with room for tokens to come
        self._start = self._stop = 0

    def append(self, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Add (B, H, T, ·), and return those of the window and of this call's own tokens."""
        new = parts[0].shape[-2]
        kept = min(self._stop - self._start, max(self.window - 1, 0))  # what the first new token sees
        if not self._parts or self._stop + new > self._parts[0].shape[-2]:
            room = 2 * max(self.window, kept + new)
            moved = []
            for i, part in enumerate(parts):
                buffer = part.new_empty(*part.shape[:-2], room, part.shape[-1])
                if self._parts:
                    buffer[..., :kept, :] = self._parts[i][..., self._stop - kept : self._stop, :]
                moved.append(buffer)
            self._parts, self._start, self._stop = tuple(moved), 0, kept
        for buffer, part in zip(self._parts, parts, strict=True):
            buffer[..., self._stop : self._stop + new, :] = part
        self._start = max(self._start, self._stop - kept)
        self._stop += new
        return tuple(buffer[..., self._start : self._stop, :] for buffer in self._parts)

    def reorder(self, rows: Tensor) -> None:
        """Keep these rows of the batch, (B,)."""
        self._parts = tuple(part[rows] for part in self._parts)
        self.running = None if self.running is None else self.running[rows]


class StateCache:
    """The state S = Σ φ_k v⁺_kᵀ of all tokens so far, (B, H, F, h + 1), in fp32 at least.

    Attributes:
        running: as of `KeyCache`.
        state: S; None before the first token.
    """

    def __init__(self) -> None:
        self.running: Tensor | None = None
        self.state: Tensor | None = None

    def add(self, key: Tensor, value: Tensor) -> None:
        """Add tokens' keys (B, H, T, F) and values (B, H, T, h)."""
        wide = torch.promote_types(key.dtype, torch.float32)
        self.state = add_to_state(self.state, key.to(wide), value.to(wide))

    def reorder(self, rows: Tensor) -> None:
        """Keep these rows of the batch, (B,)."""
        self.state = None if self.state is None else self.state[rows]
        self.running = None if self.running is None else self.running[rows]


LayerCache = KeyCache | StateCache


class Cache:
    """A model's caches, with the position and the segment of what comes next.

    Attributes:
        layers: one a block.
        next: position of the next token, (B, 1) or (1, 1); None before the first.
        segments: of the tokens in the window, (B, T), where segments were given.
        window: tokens that key caches hold; None: unlimited, by constant states.
    """

    def __init__(self, layers: list[LayerCache], window: int | None) -> None:
        self.layers, self.window = layers, window
        self.next: Tensor | None = None
        self.segments: Tensor | None = None

    def advance(self, positions: Tensor, segments: Tensor | None) -> None:
        """Note tokens that the layers have taken."""
        self.next = positions[:, -1:] + 1
        if segments is not None:
            joined = segments if self.segments is None else torch.cat([self.segments, segments], dim=1)
            self.segments = joined if self.window is None else joined[:, -self.window :]

    def reorder(self, rows: Tensor) -> None:
        """Keep these rows of the batch, (B,), some of them perhaps several times, as a beam search does."""
        for layer in self.layers:
            layer.reorder(rows)
        if self.next is not None and len(self.next) > 1:
            self.next = self.next[rows]
        self.segments = None if self.segments is None else self.segments[rows]

    @property
    def nbytes(self) -> int:
        """Bytes of what the layers hold."""
        held = 0
        for layer in self.layers:
            parts = layer._parts if isinstance(layer, KeyCache) else [layer.state]
            held += sum(part.nbytes for part in (*parts, layer.running) if part is not None)
        return held
