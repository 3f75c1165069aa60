"""Counts → figures: how closely cosines follow WordNet path similarity.

Path similarity 1 / (1 + d) has one value for each path length d, so Pearson, means and bands follow exactly from each
class's sums. Spearman follows from the histograms, with ranks shared inside a bin: within 1e-6 of SciPy's.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from modulant.geometry import mean_cosine, pearson_from_classes, spearman_from_histograms
from modulant.metrics.functional.counts import COSINE_STEPS, SQUARE_STEPS, Counts
from modulant.metrics.functional.pairs import POPULATIONS

BANDS = ((0.90, 1.0), (0.50, 0.90), (0.25, 0.50), (0.10, 0.25), (0.05, 0.10), (0.0, 0.05))
# A variance of cosines that the steps and fp32's rounding errors leave of a constant.
_FLAT = 1e-9

preservation = mean_cosine


def alignment_figures(counts: Counts) -> dict[str, Tensor]:
    """Figures as fp64 scalars; NaN where there is nothing to average.

    ``pearson``, ``spearman``; ``gradient``: mean cosine at similarity >= 0.25 minus that below 0.10; ``mean_cosine``;
    ``pairs``: their number; ``band/<low>_<high>``: mean cosine by similarity. The first five also for each population,
    under its name.
    """
    classes = _classes(counts)
    figures = _figures(classes, "")
    for p, name in enumerate(POPULATIONS):
        figures |= _figures(_classes(counts, slice(p, p + 1)), f"{name}/")
    for low, high in BANDS:
        inside = (classes.similarity >= low) & ((classes.similarity < high) | (high == 1.0))
        figures[f"band/{low:.2f}_{high:.2f}"] = classes.mean(inside)
    return figures


def constant_cosines(counts: Counts) -> bool:
    """Whether two or more pairs were counted and all their cosines are the same, as of constant representations."""
    classes = _classes(counts)
    return bool(classes.pairs.sum() >= 2) and not classes.vary


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


class _Classes(NamedTuple):
    """Of the pairs of each path length: similarity, Σ 1, Σ cos, Σ cos² in fp64, and a histogram of cosines."""

    similarity: Tensor  # (classes,), descending
    pairs: Tensor
    cosines: Tensor
    squares: Tensor
    histograms: Tensor  # (classes, bins)

    def mean(self, chosen: Tensor) -> Tensor:
        """Mean cosine over some classes."""
        return self.cosines[chosen].sum() / self.pairs[chosen].sum()

    @property
    def vary(self) -> bool:
        """Whether the variance of all cosines is more than rounding errors leave of a constant."""
        n = self.pairs.sum()
        return bool(self.squares.sum() / n - (self.cosines.sum() / n).square() > _FLAT)


def _classes(counts: Counts, populations: slice = slice(None)) -> _Classes:
    """Sums over some populations, without the dropped class."""
    histograms, sums, squares = (kind[populations, :-1].sum(0) for kind in counts)
    similarity = 1.0 / torch.arange(1, len(sums) + 1, dtype=torch.float64, device=sums.device)
    cosines, cosines_squared = sums.double() / COSINE_STEPS, squares.double() / SQUARE_STEPS
    return _Classes(similarity, histograms.sum(1).double(), cosines, cosines_squared, histograms)


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
        f"{prefix}mean_cosine": classes.cosines.sum() / classes.pairs.sum(),
        f"{prefix}pairs": classes.pairs.sum(),
    }
