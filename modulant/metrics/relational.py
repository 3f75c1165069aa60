"""Does the geometry of the representations follow WordNet? Cosine against path similarity, over all pairs.

`functional` says which pairs there are, counts them and turns counts into figures; here is the state between updates.
"""

import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchmetrics import Metric

from modulant.metrics.functional.alignment import Fine, alignment_figures, constant_cosines
from modulant.metrics.functional.counts import (
    Bins,
    Counts,
    Part,
    block_parts,
    count_parts,
    number_of_bins,
    place_bins,
    sample_parts,
)
from modulant.metrics.functional.fine_counts import FineBins, count_fine, crowded, place_fine_bins, unit_vectors
from modulant.metrics.functional.pairs import Flags, Layout, Letters, full_precision, sampled_pairs

_SAMPLE_PER_STEP = 2**16  # pairs

_T = TypeVar("_T")


class RelationalAlignment(Metric):
    """Agreement of cosines with WordNet path similarity over the i < j pairs of a population of distinct synsets.

    Every rank must call `update` with the same points: each rank counts every world-th block of pairs.

    Args:
        distances: path lengths d of all pairs, 0 on the diagonal, 255 where there is no path (such pairs are left out).
        part: of each synset, 0 training, 1 validation, 2 test, or which ones a training never saw: pairs split into
            train, mixed and held_out by it, and with a test part validation.
        pairs: "all", or the size of a seeded sample of distinct pairs.
        seed: seed of that sample.
        pos: part of speech of each synset, as WordNet's letters: nouns and verbs get figures of their own.

    >>> distances = torch.tensor([[0, 1, 3], [1, 0, 3], [3, 3, 0]], dtype=torch.uint8)
    >>> metric = RelationalAlignment(distances, torch.zeros(3, dtype=torch.bool))
    >>> metric.update(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]))
    >>> metric.compute()["pearson"].round(decimals=3)
    tensor(0.9960, dtype=torch.float64)
    """

    full_state_update = False
    is_differentiable = False
    histograms: Tensor  # (cells, classes, bins)
    sums: Tensor  # (cells, classes)
    squares: Tensor  # (cells, classes)
    remainders: Tensor  # (cells, classes), of the squares of fine counts
    _order: Tensor
    _distances: Tensor

    def __init__(
        self,
        distances: UInt8[np.ndarray, "points points"] | UInt8[Tensor, "points points"],
        part: Flags,
        pairs: int | Literal["all"] = "all",
        seed: int = 42,
        pos: Letters | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        d = np.asarray(distances)
        self.layout = Layout(part, pos)
        n, order = len(self.layout), self.layout.order
        assert d.shape == (n, n), f"distances of shape {d.shape} for {n} synsets"
        if pairs != "all" and (not isinstance(pairs, int) or pairs < 2):
            raise ValueError(f"RelationalAlignment: pairs is {pairs!r}; it must be 'all' or an integer of at least 2")
        d = d.take(order, 0).take(order, 1)  # a third of the time of d[np.ix_(order, order)]
        self.n_classes = max(int((d + np.uint8(1)).max(initial=0)), 1)  # of UNREACHABLE, 255, this is 0
        # One class more, counted and dropped: no path, and the pairs i >= j of a block.
        np.minimum(d, self.n_classes, out=d)
        self.pairs, self.seed = pairs, seed
        self.n_bins = number_of_bins(n)
        self._bins: Bins | FineBins | None = None  # placed by the first points after a reset
        self.register_buffer("_order", torch.from_numpy(order), persistent=False)
        self.register_buffer("_distances", torch.from_numpy(d), persistent=False)
        shape = (self.layout.n_cells, self.n_classes + 1)
        self.add_state("histograms", torch.zeros(*shape, self.n_bins, dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("sums", "squares", "remainders"):
            self.add_state(name, torch.zeros(*shape, dtype=torch.int64), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, points: Float[Tensor, "points dim"]) -> None:
        """Adds this rank's share of the pairs. A point of length zero has cosine 0 with all."""
        if len(points) != len(self._order):
            raise ValueError(f"RelationalAlignment: got {len(points)} points for {len(self._order)} synsets")
        device = self._order.device
        with full_precision(device):
            ordered = points.to(device)[self._order]
            unit = unit_vectors(ordered)
            broken = int((~unit.isfinite()).any(dim=1).sum())
            if broken > 0:
                warnings.warn(
                    f"RelationalAlignment: {broken} of {len(unit)} points hold NaN or infinity; no pair is counted, so "
                    "the figures are NaN",
                    stacklevel=2,
                )
                return
            if self._bins is None:
                self._bins = place_bins(unit[torch.from_numpy(self.layout.by_part).to(device)], self.n_bins)
                if crowded(unit, self.layout, self._bins):
                    self._bins = place_fine_bins(unit_vectors(ordered, fine=True), self.layout, self.n_bins)
            if isinstance(self._bins, FineBins):
                unit = unit_vectors(ordered, fine=True)
            if self.pairs == "all":
                self._count_all(unit, self._bins)
            else:
                self._count_sample(unit, self._bins, self.pairs)

    def reset(self) -> None:
        super().reset()
        self._bins = None

    def compute(self) -> dict[str, Tensor]:
        """The figures of `alignment_figures`."""
        if constant_cosines(self._counts, self._fine):
            warnings.warn(
                "RelationalAlignment: all cosines are the same, as of constant representations; with zero variance "
                "Pearson and Spearman are undefined (NaN)",
                stacklevel=2,
            )
        return alignment_figures(self._counts, self.layout.columns, self._fine)

    @property
    def _counts(self) -> Counts:
        return Counts(self.histograms, self.sums, self.squares)

    @property
    def _fine(self) -> Fine | None:
        return Fine(self._bins.centre, self.remainders) if isinstance(self._bins, FineBins) else None

    def _count_all(self, unit: Tensor, bins: Bins | FineBins) -> None:
        blocks = _by_rank(self.layout.blocks())
        if unit.device.type == "cpu" and isinstance(bins, Bins):
            # Imported here: numba takes a third of a second, which a run without an evaluation need not spend.
            from modulant.metrics.functional.compiled_counts import count_blocks

            found = count_blocks(unit, self._distances.numpy(), self.n_classes + 1, self.layout, blocks, bins)
            for state, counts in zip(self._counts, found, strict=True):
                state += counts
            return
        for first, last in blocks:
            self._count(block_parts(unit, self._distances, self.n_classes, self.layout, first, last), bins)

    def _count_sample(self, unit: Tensor, bins: Bins | FineBins, pairs: int) -> None:
        place = torch.empty_like(self._order)  # of each synset among the ordered rows: the sample ignores the split
        place[self._order] = torch.arange(len(unit), device=place.device)
        ends = place[torch.from_numpy(np.stack(sampled_pairs(len(unit), pairs, self.seed))).to(place.device)]
        for some in _by_rank(iter(ends.split(_SAMPLE_PER_STEP, dim=1))):
            self._count(sample_parts(unit, self._distances, self.layout, some), bins)

    def _count(self, parts: Iterable[Part], bins: Bins | FineBins) -> None:
        if isinstance(bins, FineBins):
            count_fine(self._counts, self.remainders, parts, bins)
        else:
            count_parts(self._counts, parts, bins)


def _by_rank(blocks: Iterator[_T]) -> Iterator[_T]:
    """This rank's share: every world-th block."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return islice(blocks, torch.distributed.get_rank(), None, torch.distributed.get_world_size())
    return blocks
