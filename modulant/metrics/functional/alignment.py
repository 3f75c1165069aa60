"""Counts → figures: how closely cosines follow WordNet path similarity.

Path similarity 1 / (1 + d) has one value for each path length d, so Pearson, means and bands follow exactly from each
class's sums, as far as fp32 knows the cosines: to 1e-7. Spearman follows from the histograms, with ranks shared inside
a bin: 1e-6 from SciPy's as a rule, √(Σ p³) at most, 1e-3, where p is each bin's share of the pairs.

Cosines that crowd (of nearly constant representations, of tight clusters) are counted in fp64 by `fine_counts`: both
coefficients are within 1e-5 of fp64's where the standard deviation of the cosines is above 1e-6, and 1e-4 at 1e-7.
Constant, and therefore NaN, are cosines with a variance below `FLAT_FINE`; below `FLAT` where a sample of the pairs
does not show that they crowd. The bootstrap has the same thresholds.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from modulant.geometry import mean_cosine, pearson_from_classes, spearman_from_histograms
from modulant.metrics.functional.counts import COSINE_STEPS, SQUARE_STEPS, Counts
from modulant.metrics.functional.fine_counts import FLAT, FLAT_FINE, STEPS
from modulant.metrics.functional.pairs import STRATA

BANDS = ((0.90, 1.0), (0.50, 0.90), (0.25, 0.50), (0.10, 0.25), (0.05, 0.10), (0.0, 0.05))

preservation = mean_cosine


class Fine(NamedTuple):
    """How `counts` are to be read that `count_fine` has made."""

    centre: float
    remainders: Tensor  # (cells, classes)


def alignment_figures(
    counts: Counts, columns: Mapping[str, Sequence[int]], fine: Fine | None = None
) -> dict[str, Tensor]:
    """Figures as fp64 scalars; NaN where there is nothing to average.

    ``pearson``, ``spearman``; ``gradient``: mean cosine at similarity >= 0.25 minus that below 0.10; ``mean_cosine``;
    ``pairs``: their number; ``band/<low>_<high>``: mean cosine by similarity. The first five also for each population,
    under its name; ``pearson``, ``spearman`` and ``pairs`` for each part of speech that has pairs, as in
    ``nouns/pearson`` and ``held_out/nouns/pearson``.

    Args:
        counts: by cell.
        columns: of `Layout`, whose cells the counts are of.
        fine: how counts of `count_fine` are to be read.
    """
    figures: dict[str, Tensor] = {}
    for name, cells in columns.items():
        classes = _classes(counts, fine, cells)
        found = _figures(classes, prefix_of(name))
        if name.rpartition("/")[2] not in STRATA:
            figures |= found
        elif classes.pairs.any():
            figures |= {key: found[key] for key in (f"{name}/pearson", f"{name}/spearman", f"{name}/pairs")}
    classes = _classes(counts, fine)
    for low, high in BANDS:
        inside = (classes.similarity >= low) & ((classes.similarity < high) | (high == 1.0))
        figures[f"band/{low:.2f}_{high:.2f}"] = classes.mean(inside)
    return figures


def prefix_of(column: str) -> str:
    """What stands before the figures of a column of `Layout`.

    >>> prefix_of("all"), prefix_of("held_out/nouns")
    ('', 'held_out/nouns/')
    """
    return "" if column == "all" else f"{column}/"


def constant_cosines(counts: Counts, fine: Fine | None = None) -> bool:
    """Whether two or more pairs were counted and all their cosines are the same, as of constant representations."""
    classes = _classes(counts, fine)
    return bool(classes.pairs.sum() >= 2) and not classes.vary


def lifts(modulated: Mapping[str, float], original: Mapping[str, float]) -> dict[str, float]:
    """Modulated − original of each Pearson, Spearman and gradient, and the same in percent of |original|.

    >>> lifts({"pearson": 0.75}, {"pearson": 0.5})
    {'pearson_lift': 0.25, 'pearson_lift_percent': 50.0}
    """
    figures = {}
    for key in modulated:
        if key.rpartition("/")[2] in ("pearson", "spearman", "gradient") and key in original:
            lift = modulated[key] - original[key]
            figures[f"{key}_lift"] = lift
            if original[key] != 0:
                figures[f"{key}_lift_percent"] = 100 * lift / abs(original[key])
    return figures


class _Classes(NamedTuple):
    """Of the pairs of each path length: similarity, Σ 1, Σ c, Σ c² in fp64, and a histogram; c is cos − centre."""

    similarity: Tensor  # (classes,), descending
    pairs: Tensor
    cosines: Tensor
    squares: Tensor
    histograms: Tensor  # (classes, bins)
    centre: float = 0.0
    flat: float = FLAT

    def mean(self, chosen: Tensor) -> Tensor:
        """Mean cosine over some classes."""
        return self.cosines[chosen].sum() / self.pairs[chosen].sum() + self.centre

    @property
    def vary(self) -> bool:
        """Whether the variance of all cosines is more than rounding errors leave of a constant."""
        n = self.pairs.sum()
        return bool(self.squares.sum() / n - (self.cosines.sum() / n).square() > self.flat)


def _classes(counts: Counts, fine: Fine | None, cells: Sequence[int] | slice = slice(None)) -> _Classes:
    """Sums over some cells, without the dropped class."""
    histograms, sums, squares = (kind[cells, :-1].sum(0) for kind in counts)
    similarity = 1.0 / torch.arange(1, len(sums) + 1, dtype=torch.float64, device=sums.device)
    pairs = histograms.sum(1).double()
    if fine is None:
        return _Classes(similarity, pairs, sums.double() / COSINE_STEPS, squares.double() / SQUARE_STEPS, histograms)
    # By integers of any size about the mean of these very pairs, since a tight population may lie far from the centre.
    n, total = histograms.sum(1).tolist(), sums.tolist()
    remainders = fine.remainders[cells, :-1].sum(0)
    squared = [(q << 30) + r for q, r in zip(squares.tolist(), remainders.tolist(), strict=True)]
    mean = round(sum(total) / max(sum(n), 1))
    squared = [q - 2 * mean * s + k * mean**2 for q, s, k in zip(squared, total, n, strict=True)]
    total = [s - k * mean for s, k in zip(total, n, strict=True)]
    cosines, cosines_squared = sums.new_tensor(total).double() / STEPS, pairs.new_tensor(list(map(float, squared)))
    centre = fine.centre + mean / STEPS
    return _Classes(similarity, pairs, cosines, cosines_squared / STEPS**2, histograms, centre, FLAT_FINE)


def _figures(classes: _Classes, prefix: str) -> dict[str, Tensor]:
    near, far = classes.mean(classes.similarity >= 0.25), classes.mean(classes.similarity < 0.10)
    pearson = spearman = classes.pairs.new_tensor(torch.nan)
    if classes.vary:
        pearson = pearson_from_classes(classes.similarity, classes.pairs, classes.cosines, classes.squares)
        spearman = spearman_from_histograms(classes.histograms.flip(0))  # ascending similarity
    return {
        f"{prefix}pearson": pearson,
        f"{prefix}spearman": spearman,
        f"{prefix}gradient": near - far,
        f"{prefix}mean_cosine": classes.mean(classes.similarity > 0),
        f"{prefix}pairs": classes.pairs.sum(),
    }
