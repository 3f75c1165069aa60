"""How well a text is predicted: bits per byte, nats a token, perplexity, over all processes."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from wavegpt.training.losses import IGNORED

LAST = "_annealed"  # end of the names of figures at the annealing's end
DECILES = 10


class TextQuality(Metric):
    r"""Bits per byte \sum nats / (ln 2 · bytes), nats a token and perplexity of all predicted tokens.

    A mark between documents is predicted like any token, and has no byte.

    With ranks also nats a token by parts: of the predicted token's frequency, ``by_frequency/decile_01`` (the commonest
    tenth of the vocabulary) … ``decile_10``, and of its position, ``by_position/position_001``, ``position_002_003``:
    the number of tokens that it was predicted from, by powers of two. Parts without a token are left out.

    Args:
        anneals: the same figures of a second pass, at the annealing's end, under names that end in ``_annealed``; parts
            are of the first pass.
        ranks: frequency ranks of the tokens, (V,), 0 the commonest.
        context: tokens of a window, where ranks are given.
    """

    full_state_update = False
    nats: Tensor  # (1,), or (2,) with the second pass
    tokens: Tensor
    bytes: Tensor
    nats_of: Tensor  # (10 + P,): of deciles, then of positions
    tokens_of: Tensor
    decile: Tensor
    place: Tensor

    def __init__(self, anneals: bool = False, ranks: Int[Tensor, " V"] | None = None, context: int = 0) -> None:
        super().__init__()
        zeros = torch.zeros(1 + anneals, dtype=torch.float32)
        self.add_state("nats", zeros, dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("bytes", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self._parts = [] if ranks is None else [*_deciles(), *_positions(context)]
        self.add_state("nats_of", torch.zeros(len(self._parts), dtype=torch.float32), dist_reduce_fx="sum")
        self.add_state("tokens_of", torch.zeros(len(self._parts), dtype=torch.long), dist_reduce_fx="sum")
        if ranks is not None:  # part of a token, and of a place
            places = [DECILES + t.bit_length() - 1 for t in range(1, context + 1)]
            self.register_buffer("decile", decile_of(ranks), persistent=False)
            self.register_buffer("place", torch.tensor(places, dtype=torch.long), persistent=False)

    def update(self, nats: Float[Tensor, "passes B T"], labels: Int[Tensor, "B T"], size: int) -> None:
        """Add a batch.

        Args:
            nats: of each predicted token, 0 where nothing is predicted; of one pass or two.
            labels: the predicted tokens, -100 where nothing is predicted.
            size: number of bytes of the predicted tokens.
        """
        predicted = labels != IGNORED
        self.nats = self.nats + nats.flatten(1).sum(1)
        self.tokens = self.tokens + predicted.sum()
        self.bytes = self.bytes + size
        if self._parts:
            # What is not predicted adds 0 nats and 0 tokens to some part.
            # As products, which add in the same order every time; `index_add` does not on a GPU.
            parts = (self.decile[labels.clamp_min(0)], self.place[: labels.shape[1]].expand_as(labels))
            for part in parts:
                member = F.one_hot(part.flatten(), len(self._parts)).to(nats.dtype).T
                self.nats_of = self.nats_of + member @ nats[0].flatten()
                self.tokens_of = self.tokens_of + (member @ predicted.flatten().to(nats.dtype)).long()

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
        for name, nats, tokens in zip(self._parts, self.nats_of, self.tokens_of, strict=True):
            if tokens:
                found[f"{name}/nats_per_token"] = nats / tokens
        return found


def decile_of(ranks: Int[Tensor, " V"]) -> Int[Tensor, " V"]:
    """Tenth of the vocabulary by frequency that each id is of: 0 the commonest … 9.

    >>> decile_of(torch.tensor([4, 0, 1, 2, 3]))
    tensor([8, 0, 2, 4, 6])
    """
    return ranks.long() * DECILES // len(ranks)


def _deciles() -> Iterator[str]:
    return (f"by_frequency/decile_{n:02d}" for n in range(1, DECILES + 1))


def _positions(context: int) -> Iterator[str]:
    """Of a power of two to the next.

    >>> list(_positions(5))
    ['by_position/position_1', 'by_position/position_2_3', 'by_position/position_4_5']
    """
    width = len(str(context))
    for start in (2**n for n in range(context.bit_length())):
        ends = dict.fromkeys((start, min(2 * start - 1, context)))
        yield "by_position/position_" + "_".join(f"{end:0{width}d}" for end in ends)
