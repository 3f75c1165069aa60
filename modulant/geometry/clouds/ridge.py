"""Linear maps from one cloud to another: ridge regression, and what it explains of rows that it did not see."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Num
from torch import Tensor

_HELD = 5  # one row in so many chooses the penalty
_PENALTIES = [10 ** (exponent / 2) for exponent in range(-16, 5)]  # of the mean eigenvalue: 1e-8 … 1e2


class Map(NamedTuple):
    """A linear map, and its penalty as a share of the mean eigenvalue of Xᵀ X."""

    weights: Tensor
    penalty: float


class Ridge:
    r"""Ridge regression on given predictors, B = (Xᵀ X + λ I)⁻¹ Xᵀ Y in fp64; targets Y come later, and often.

    λ is chosen on the last fifth of the rows, so these must be in random order. With Xᵀ X = V diag(e) Vᵀ, G = Vᵀ Xᵀ Y
    of the other rows, and M = Vᵀ Xᵀ X V and H = Vᵀ Xᵀ Y of the last fifth, the error there is

        ‖Y‖² − 2 Σ_k ⟨G_k, H_k⟩ / (e_k + λ) + Σ_kl M_kl ⟨G_k, G_l⟩ / ((e_k + λ)(e_l + λ))

    so that no λ costs more than D² operations. Centre both clouds first.

    Raises:
        ValueError: fewer than 5 rows.
    """

    def __init__(self, x: Float[Tensor, "rows dim"]) -> None:
        if len(x) < _HELD:
            raise ValueError(f"Ridge: got {len(x)} rows; choosing a penalty needs at least {_HELD}")
        self._x = x.double()
        self.first = len(x) - len(x) // _HELD  # rows before the last fifth
        inner, held = self._x[: self.first], self._x[self.first :]
        gram, held_gram = inner.mT @ inner, held.mT @ held
        self._values, self._axes = torch.linalg.eigh(gram + held_gram)
        self._inner_values, self._inner_axes = torch.linalg.eigh(gram)
        self._held_gram = self._inner_axes.mT @ held_gram @ self._inner_axes

    def fit(self, y: Float[Tensor, "rows targets"]) -> Map:
        """The map (dim, targets) with the penalty that is best on the last fifth."""
        y = y.double()
        return self.fit_products(self._x[: self.first].mT @ y[: self.first], self._x[self.first :].mT @ y[self.first :])

    def fit_products(self, inner: Float[Tensor, "dim targets"], held: Float[Tensor, "dim targets"]) -> Map:
        """The same from Xᵀ Y of the rows before the last fifth, and of the last fifth."""
        share = self._choose(self._inner_axes.mT @ inner, self._inner_axes.mT @ held)
        penalised = self._values.clamp_min(0) + share * self._values.mean()
        return Map(self._axes @ ((self._axes.mT @ (inner + held)) / penalised.unsqueeze(1)), share)

    def _choose(self, fitted: Tensor, held: Tensor) -> float:
        """The penalty with the smallest error; ‖Y‖² is the same for all."""
        across = (fitted * held).sum(1)
        products = self._held_gram * (fitted @ fitted.mT)
        errors = []
        for share in _PENALTIES:
            inverse = 1 / (self._inner_values.clamp_min(0) + share * self._inner_values.mean())
            errors.append(inverse @ products @ inverse - 2 * inverse @ across)
        return _PENALTIES[int(torch.stack(errors).argmin())]


def explained(
    target: Float[Tensor, "rows dim"],
    predicted: Float[Tensor, "rows dim"],
    weights: Num[Tensor, "replicates rows"] | None = None,
) -> Float[Tensor, "replicates"]:
    """R² = 1 − Σ ‖y − ŷ‖² / Σ ‖y‖², each row counted as often as its weight says; one replicate without weights.

    0 is what the origin predicts: take away from both the mean of the rows that were fitted. Below 0 the prediction is
    worse than that.

    >>> explained(torch.tensor([[2.0], [0.0]]), torch.tensor([[1.0], [0.0]]))
    tensor([0.7500], dtype=torch.float64)
    """
    target, predicted = target.double(), predicted.double()
    counts = target.new_ones(1, len(target)) if weights is None else weights.double()
    wrong, all_ = (target - predicted).square().sum(1), target.square().sum(1)
    return 1 - counts @ wrong / (counts @ all_)
