"""One layer's attention, reduced to a figure a head: nothing of its size is kept.

Queries are gone through in blocks. What is undefined for a query (one key to look at) is left out of its mean.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from modulant.geometry import (
    circular_centroid,
    entropy,
    head_divergence,
    normalised_entropy,
    normalised_entropy_without,
    phase_synchrony,
    relative_distance,
    relative_spread,
)
from probes.attention.texts import FIRST, PUNCTUATION, SPECIAL, WORD

_NUMBERS = 2**20  # of a block of queries, in fp64
_CLASSES = {"first": FIRST, "special": SPECIAL, "punctuation": PUNCTUATION}
LAST = "_last"  # ending of what is of the last query alone, or of the one that is asked for a token
# Of each head. `source_…` are figures as they were published.
OF_HEADS = (
    *("entropy", "entropy_without_sink", "sink", "distance", "spread", "head_divergence"),
    *(f"{what}_{name}" for what in ("top", "mass") for name in (*_CLASSES, "own")),
    *("source_entropy", "source_coherence"),
)
# Of all heads of a layer together; the phase as a point on the circle.
OF_LAYERS = ("source_head_sync", "source_phase_x", "source_phase_y")


@dataclass(frozen=True, eq=False)
class Place:
    """What one attention looks at.

    Attributes:
        visible: (queries, keys), on the device of the weights.
        sink: the key that is set apart: the first token, of cross-attention the last.
        cross: whether queries and keys are tokens of two texts.
        kinds: (B, keys) kinds of tokens; None: the first, and no others of a kind.
        asked: (B,) the query that makes a token; None: the last.
    """

    visible: Tensor
    sink: int
    cross: bool
    kinds: Tensor | None
    asked: Tensor | None = None

    def classes(self, batch: int) -> Tensor:
        """(B, keys) kinds, the first token's where nothing is known."""
        if self.kinds is not None:
            return self.kinds.to(self.visible.device)
        kinds = torch.full((batch, self.visible.shape[1]), WORD, device=self.visible.device)
        kinds[:, 0] = FIRST
        return kinds

    def apart(self) -> Tensor:
        """(queries, keys) distance in tokens; of cross-attention that to the diagonal, as a share of the texts."""
        n, m = self.visible.shape
        i, j = (torch.arange(k, dtype=torch.float64, device=self.visible.device) for k in (n, m))
        if self.cross:
            i, j = i / max(n - 1, 1), j / max(m - 1, 1)
        return (i[:, None] - j).abs()


def reduce_attention(weights: Tensor, place: Place) -> dict[str, Tensor]:
    """Figures of a batch by name: (B, H) of heads, (B,) of a layer; each as a mean, and with `LAST` of one query.

    Args:
        weights: (B, H, queries, keys), in fp64; rows sum to 1.
        place: what is looked at.
    """
    batch, heads, queries, keys = weights.shape
    step = max(1, _NUMBERS // (batch * heads * keys))
    apart, kinds = place.apart(), place.classes(batch)
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    lasts: dict[str, Tensor] = {}
    asked = torch.full((batch,), queries - 1) if place.asked is None else place.asked
    asked = asked.to(weights.device)
    for start in range(0, queries, step):
        rows = slice(start, start + step)
        values = _by_query(weights[:, :, rows], place, place.visible[rows], apart[rows], kinds, start)
        for name, value in values.items():
            known = value.isfinite()
            sums[name] = sums.get(name, 0) + torch.where(known, value, 0.0).sum(-1)
            counts[name] = counts.get(name, 0) + known.sum(-1)
            lasts[name] = _taken(value, asked - start, lasts.get(name))
    means = {name: total / counts[name] for name, total in sums.items()}
    return means | {name + LAST: value for name, value in lasts.items()}


def _taken(value: Tensor, query: Tensor, before: Tensor | None) -> Tensor:
    """(B, …) of value (B, …, q) at each one's query (B,); `before` where that is not in this block."""
    shape = (len(query), *(1,) * (value.ndim - 1))
    here = value.gather(-1, query.clamp(0, value.shape[-1] - 1).view(shape).expand(*value.shape[:-1], 1))[..., 0]
    inside = ((query >= 0) & (query < value.shape[-1])).view(shape[:-1])
    return torch.where(inside, here, torch.nan if before is None else before)


def _by_query(
    weights: Tensor, place: Place, visible: Tensor, apart: Tensor, kinds: Tensor, start: int
) -> dict[str, Tensor]:
    """(B, H, q) of heads and (B, q) of layers, for a block of queries."""
    n = len(visible)
    query = torch.arange(start, start + n, device=weights.device)
    sees = visible[:, place.sink].clone()
    own = torch.zeros_like(visible)
    if not place.cross:
        sees &= query != place.sink  # which looks at itself
        own[torch.arange(n), query] = True
    top = weights.argmax(-1)
    found = {
        "entropy": normalised_entropy(weights, visible),
        "entropy_without_sink": normalised_entropy_without(weights, visible, place.sink),
        "sink": torch.where(sees, weights[..., place.sink], torch.nan),
        "distance": relative_distance(weights, visible, apart),
        "spread": relative_spread(weights, visible),
        "head_divergence": head_divergence(weights, visible),
        "source_entropy": entropy(weights),
    }
    classes = {name: (kinds == kind)[:, None, None].expand(-1, 1, n, -1) for name, kind in _CLASSES.items()}
    if not place.cross:
        others = (kinds == WORD)[:, None, None]
        classes["own"] = own & others
    chooses = visible.sum(-1) > 1
    for name, members in classes.items():
        mass = torch.where(members, weights, 0.0).sum(-1)
        at_top = members.expand(weights.shape).gather(-1, top[..., None])[..., 0].double()
        found[f"mass_{name}"] = torch.where(chooses, mass, torch.nan)
        found[f"top_{name}"] = torch.where(chooses, at_top, torch.nan)
    centroid = circular_centroid(weights)
    found["source_coherence"] = centroid.abs()
    phase = torch.polar(torch.ones_like(centroid.abs()), centroid.angle()).mean(1)
    return found | {
        "source_head_sync": phase_synchrony(centroid),
        "source_phase_x": phase.real,
        "source_phase_y": phase.imag,
    }
