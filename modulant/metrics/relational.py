"""Does the geometry of the representations follow WordNet? Cosine against path similarity, over all pairs.

Path similarity 1 / (1 + d) has one value for each path length d, so a pair is its class d and its cosine. Rows of the
cosine matrix are streamed in blocks; what is kept is, for each class, the sum and the sum of squares of the cosines
(Pearson, means and bands follow exactly) and a histogram of them (Spearman follows, with ranks shared inside a bin: off
by less than 1e-6 when measured against SciPy).

The sums are of integers, cosines in steps of 2⁻²⁴ and their squares in steps of 2⁻³⁰, so they do not depend on the
order of addition: every number of ranks or threads gives the same bits. Under torch.distributed each rank takes every
world-th block, and the sum over ranks is the whole. On a CPU a compiled loop counts (`pair_counts`); elsewhere, and for
samples, array operations do, to the same bits.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torchmetrics import Metric

from modulant.geometry import cosine_preservation, pearson_from_classes, spearman_from_histograms
from modulant.metrics.streaming import full_precision, row_blocks

POPULATIONS = ("train", "mixed", "held_out")
BANDS = ((0.90, 1.0), (0.50, 0.90), (0.25, 0.50), (0.10, 0.25), (0.05, 0.10), (0.0, 0.05))
_NO_PATH = 255
# Of few pairs each weighs more, and so does what shares a bin; of many the histograms should stay in a core's cache.
_BINS, _BINS_OF_FEW, _FEW = 2**13, 2**15, 2**21
_COSINE_STEPS = 2.0**24
_SQUARE_STEPS = 2.0**30
PAIRS_PER_BLOCK = 2**21
# A variance of cosines that the steps and fp32's rounding errors leave of a constant.
_FLAT = 1e-9

_T = TypeVar("_T")
# A population, and the classes and cosines of pairs in it; a block of pairs is worked out by the rank that takes it.
_Part = tuple[int, Tensor, Tensor]
_Block = Callable[[], Iterator[_Part]]

preservation = cosine_preservation


class RelationalAlignment(Metric):
    """Agreement of cosines with WordNet path similarity over the i < j pairs of a population of distinct synsets.

    Every rank must call `update` with the same points: the work is divided between ranks here.

    Args:
        distances: path lengths d of all pairs, 0 on the diagonal, 255 where there is no path (such pairs are left out).
        held_out: which synsets a training never saw: pairs split into train, mixed and held_out by it.
        pairs: "all", or the size of a seeded sample of distinct pairs.
        seed: seed of that sample.
    """

    full_state_update = False
    is_differentiable = False
    histograms: Tensor  # (3 populations, classes, bins)
    sums: Tensor  # (3, classes)
    squares: Tensor  # (3, classes)
    _order: Tensor
    _distances: Tensor

    def __init__(
        self,
        distances: UInt8[np.ndarray, "points points"] | UInt8[Tensor, "points points"],
        held_out: Bool[np.ndarray, "points"] | Bool[Tensor, "points"],
        pairs: int | Literal["all"] = "all",
        seed: int = 42,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        d = np.asarray(distances)
        out = np.asarray(held_out, dtype=bool)
        assert d.shape == (len(out), len(out)), f"distances of shape {d.shape} for {len(out)} held_out flags"
        if pairs != "all" and (not isinstance(pairs, int) or pairs < 2):
            raise ValueError(f"RelationalAlignment: pairs is {pairs!r}; it must be 'all' or an integer of at least 2")
        # Training rows first: then any block of the matrix falls into at most two populations, at one column.
        order = np.argsort(out, kind="stable")
        d = d[np.ix_(order, order)]
        self.n_classes = int(d[d != _NO_PATH].max(initial=0)) + 1
        # One class more, counted and dropped: no path, and the pairs i >= j of a block.
        d[d == _NO_PATH] = self.n_classes
        self.n_train = int((~out).sum())
        self.pairs, self.seed = pairs, seed
        # Where the histogram's bins are dense; settled by the first points after a reset.
        self._centre_and_width: tuple[float, float] | None = None
        self.register_buffer("_order", torch.from_numpy(order), persistent=False)
        self.register_buffer("_distances", torch.from_numpy(d), persistent=False)
        shape = (len(POPULATIONS), self.n_classes + 1)
        self.n_bins = _BINS_OF_FEW if len(out) ** 2 < 2 * _FEW else _BINS
        self.add_state("histograms", torch.zeros(*shape, self.n_bins, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(*shape, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros(*shape, dtype=torch.int64), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(self, points: Float[Tensor, "points dim"]) -> None:
        """Adds this rank's share of the pairs. A point of length zero has cosine 0 with all."""
        if len(points) != len(self._order):
            raise ValueError(f"RelationalAlignment: got {len(points)} points for {len(self._order)} synsets")
        device = self._order.device
        with full_precision(device):
            unit = torch.nn.functional.normalize(points.to(device)[self._order].float(), dim=-1)
            broken = int((~unit.isfinite()).any(dim=1).sum())
            if broken > 0:
                warnings.warn(
                    f"RelationalAlignment: {broken} of {len(unit)} points hold NaN or infinity; no pair is counted, so "
                    "the figures are NaN",
                    stacklevel=2,
                )
                return
            if self._centre_and_width is None:
                self._centre_and_width = _crowd(unit)
            if self.pairs == "all" and device.type == "cpu":
                self._count(unit)
                return
            for block in self._all_pairs(unit) if self.pairs == "all" else self._sampled_pairs(unit):
                for population, classes, cosines in block():
                    self._accumulate(population, classes, cosines)

    def reset(self) -> None:
        super().reset()
        self._centre_and_width = None

    def compute(self) -> dict[str, Tensor]:
        """Figures as fp64 scalars; NaN where there is nothing to average.

        ``pearson``, ``spearman``; ``gradient``: mean cosine at similarity >= 0.25 minus that below 0.10;
        ``mean_cosine``; ``pairs``: their number; ``band/<low>_<high>``: mean cosine by similarity. The first five also
        for each population, under its name.
        """
        _, counts, sums, squares = self._classes(slice(None))
        if counts.sum() >= 2 and not _varies(counts, sums, squares):
            warnings.warn(
                "RelationalAlignment: all cosines are the same, as of constant representations; with zero variance "
                "Pearson and Spearman are undefined (NaN)",
                stacklevel=2,
            )
        figures = self._figures(slice(None), "")
        for p, name in enumerate(POPULATIONS):
            figures |= self._figures(slice(p, p + 1), f"{name}/")
        similarity, counts, sums, _ = self._classes(slice(None))
        for low, high in BANDS:
            inside = (similarity >= low) & ((similarity < high) | (high == 1.0))
            figures[f"band/{low:.2f}_{high:.2f}"] = _mean(counts, sums, inside)
        return figures

    def _classes(self, populations: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Path similarity, Σ 1, Σ cos and Σ cos² of each class, the dropped one left out."""
        similarity = 1.0 / torch.arange(1, self.n_classes + 1, dtype=torch.float64, device=self.sums.device)
        counts = self.histograms[populations, :-1].sum((0, 2)).double()
        sums = self.sums[populations, :-1].sum(0).double() / _COSINE_STEPS
        return similarity, counts, sums, self.squares[populations, :-1].sum(0).double() / _SQUARE_STEPS

    def _figures(self, populations: slice, prefix: str) -> dict[str, Tensor]:
        similarity, counts, sums, squares = self._classes(populations)
        histograms = self.histograms[populations, :-1].sum(0)
        near, far = _mean(counts, sums, similarity >= 0.25), _mean(counts, sums, similarity < 0.10)
        pearson = spearman = counts.new_tensor(torch.nan)
        if _varies(counts, sums, squares):
            pearson = pearson_from_classes(similarity, counts, sums, squares)
            spearman = spearman_from_histograms(histograms.flip(0))  # ascending similarity
        return {
            f"{prefix}pearson": pearson,
            f"{prefix}spearman": spearman,
            f"{prefix}gradient": near - far,
            f"{prefix}mean_cosine": sums.sum() / counts.sum(),
            f"{prefix}pairs": counts.sum(),
        }

    def _count(self, unit: Tensor) -> None:
        """All pairs of this rank's blocks by the compiled loop."""
        # Imported here: numba takes a third of a second, which a run without an evaluation need not spend.
        from modulant.metrics.pair_counts import Bins, count_blocks

        assert self._centre_and_width is not None
        blocks = _by_rank(row_blocks(len(unit), self.n_train, PAIRS_PER_BLOCK))
        bins = Bins(self.n_bins, *self._centre_and_width)
        counted = count_blocks(unit, self._distances.numpy(), self.n_classes + 1, self.n_train, blocks, bins)
        for state, counts in zip((self.histograms, self.sums, self.squares), counted, strict=True):
            state += torch.from_numpy(counts)

    def _accumulate(self, population: int, classes: Tensor, cosines: Tensor) -> None:
        """The same by array operations."""
        n = self.n_classes + 1
        assert self._centre_and_width is not None
        centre, width = self._centre_and_width
        x = cosines.sub(centre)
        x.div_(x.abs().add_(width))  # into (−1, 1)
        bins = x.add_(1).mul_(self.n_bins / 2).to(torch.int32)
        keys = bins.add_(classes, alpha=self.n_bins)
        self.histograms[population] += torch.bincount(keys, minlength=n * self.n_bins).view(n, -1)
        fixed = cosines.mul(_COSINE_STEPS).round_().double()
        self.sums[population] += torch.bincount(classes, weights=fixed, minlength=n).long()
        fixed.square_().mul_(_SQUARE_STEPS / _COSINE_STEPS**2).add_(0.5).floor_()
        self.squares[population] += torch.bincount(classes, weights=fixed, minlength=n).long()

    def _all_pairs(self, unit: Tensor) -> Iterator[_Block]:
        for first, last in _by_rank(row_blocks(len(unit), self.n_train, PAIRS_PER_BLOCK)):
            yield partial(self._rows, unit, first, last)

    def _rows(self, unit: Tensor, first: int, last: int) -> Iterator[_Part]:
        """Pairs of rows [first, last) with all later ones. Such rows are all training, or all held out."""
        cosines = unit[first:last] @ unit[first:].mT
        classes = self._distances[first:last, first:].to(torch.int32)
        classes[torch.ones_like(classes, dtype=torch.bool).tril_()] = self.n_classes  # i >= j
        if first >= self.n_train:
            yield 2, classes.flatten(), cosines.flatten()
        else:
            columns = self.n_train - first
            yield 0, classes[:, :columns].flatten(), cosines[:, :columns].flatten()
            if columns < classes.shape[1]:
                yield 1, classes[:, columns:].flatten(), cosines[:, columns:].flatten()

    def _sampled_pairs(self, unit: Tensor) -> Iterator[_Block]:
        n = len(unit)
        total = n * (n - 1) // 2
        assert self.pairs != "all"
        chosen = np.random.default_rng(self.seed).choice(total, size=min(self.pairs, total), replace=False)
        # Pair number i (i - 1) / 2 + j, j < i, of the original order: the sample does not depend on the split.
        i = ((1 + np.sqrt(1 + 8 * chosen.astype(np.float64))) / 2).astype(np.int64)
        i -= i * (i - 1) // 2 > chosen
        i += (i + 1) * i // 2 <= chosen
        place = torch.empty_like(self._order)
        place[self._order] = torch.arange(n, device=place.device)
        ends = torch.from_numpy(np.stack([i, chosen - i * (i - 1) // 2])).to(place.device)
        for chunk in _by_rank(iter(place[ends].split(2**16, dim=1))):
            yield partial(self._chosen, unit, chunk)

    def _chosen(self, unit: Tensor, ends: Tensor) -> Iterator[_Part]:
        i, j = ends
        cosines = (unit[i] * unit[j]).sum(-1)
        classes = self._distances[i, j].to(torch.int32)
        population = (i >= self.n_train).int() + (j >= self.n_train).int()
        for p in range(len(POPULATIONS)):
            yield p, classes[population == p], cosines[population == p]


def lifts(modulated: Mapping[str, float], original: Mapping[str, float]) -> dict[str, float]:
    """Modulated − original of Pearson, Spearman and gradient in each population, and the same in percent of |original|.

    >>> lifts({"pearson": 0.75}, {"pearson": 0.5})
    {'pearson_lift': 0.25, 'pearson_lift_percent': 50.0}
    """
    figures = {}
    prefixes = ("", *(f"{population}/" for population in POPULATIONS))
    for key in (prefix + name for prefix in prefixes for name in ("pearson", "spearman", "gradient")):
        if key in modulated and key in original:
            lift = modulated[key] - original[key]
            figures[f"{key}_lift"] = lift
            if original[key] != 0:
                figures[f"{key}_lift_percent"] = 100 * lift / abs(original[key])
    return figures


def _by_rank(blocks: Iterator[_T]) -> Iterator[_T]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return islice(blocks, torch.distributed.get_rank(), None, torch.distributed.get_world_size())
    return blocks


def _crowd(unit: Tensor) -> tuple[float, float]:
    """About the mean and standard deviation of all cosines: bins are dense where these are.

    Of some thousand points, by |Σ u|² and |Uᵀ U|², less their n cosines with themselves. Rounded coarsely, so that
    ranks with other rounding errors agree on the bins.
    """
    u = unit[:: max(1, len(unit) // 1024)].double()
    n = len(u)
    pairs = max(n * (n - 1), 1)
    mean = (u.sum(0).square().sum().item() - n) / pairs
    spread = max(((u.mT @ u).square().sum().item() - n) / pairs - mean**2, 0.0) ** 0.5
    return round(mean, 3), float(f"{max(spread, 1e-3):.1g}")


def _mean(counts: Tensor, sums: Tensor, chosen: Tensor) -> Tensor:
    return sums[chosen].sum() / counts[chosen].sum()


def _varies(counts: Tensor, sums: Tensor, squares: Tensor) -> bool:
    return bool(squares.sum() / counts.sum() - (sums.sum() / counts.sum()).square() > _FLAT)
