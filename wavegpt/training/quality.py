"""How well a text is predicted: bits per byte, nats a token, perplexity, over all processes."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric

LAST = "_annealed"  # end of the names of figures at the annealing's end


class TextQuality(Metric):
    r"""Bits per byte \sum nats / (ln 2 · bytes), nats a token and perplexity of all predicted tokens.

    A mark between documents is predicted like any token, and has no byte.

    Args:
        anneals: the same figures of a second pass, at the annealing's end, under names that end in ``_annealed``.
    """

    full_state_update = False
    nats: Tensor  # (1,), or (2,) with the second pass
    tokens: Tensor
    bytes: Tensor

    def __init__(self, anneals: bool = False) -> None:
        super().__init__()
        zeros = torch.zeros(1 + anneals, dtype=torch.float32)
        self.add_state("nats", zeros, dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("bytes", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, nats: Tensor, tokens: Tensor, size: int) -> None:
        """Add a batch.

        Args:
            nats: sum over its predicted tokens, (1,) or (2,).
            tokens: number of them.
            size: number of their bytes.
        """
        self.nats = self.nats + nats
        self.tokens = self.tokens + tokens
        self.bytes = self.bytes + size

    def compute(self) -> dict[str, Tensor]:
        """The figures; NaN of no token."""
        found: dict[str, Tensor] = {}
        for nats, end in zip(self.nats, ("", LAST), strict=False):
            loss = nats / self.tokens
            found |= {
                f"bits_per_byte{end}": nats / (math.log(2) * self.bytes),
                f"loss{end}": loss,
                f"perplexity{end}": loss.exp(),
            }
        return found
