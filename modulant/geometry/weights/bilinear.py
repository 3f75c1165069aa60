r"""Bilinear forms of attention heads, M = LᵀR of two d × D matrices, by problems of at most 2d columns.

Of the scores of a head L is the matrix of its queries and R that of its keys: x and y get the score xᵀMy. Of what it
writes, L is the transposed output matrix and R that of its values. (AL, A⁻ᵀR) is the same head for any invertible A,
and everything here but the trace cosine is the same for it; `L @ R.T` of several heads, by contrast, holds products
that no model forms.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from modulant.geometry.clouds.dimensions import participation_ratio
from modulant.geometry.weights.effective_rank import stable_rank

_ROUND_OFF = 1e-6  # of the largest eigenvalue: smaller ones of the symmetric part have no sign
_DEPENDENT = 1e-4  # of the largest pivot: below it, squares lose half of fp64's digits


class Form(NamedTuple):
    """A batch of forms in the basis of their own columns, of r = min(2d, D) dimensions.

    Attributes:
        core: M in an orthonormal basis of the rows of L and R; it has the same singular values, the same eigenvalues,
            and the same symmetric part but for zeros.
        singular: singular values of M, descending; at most d are not zero.
        product: RLᵀ, which has those eigenvalues of M that are not zero.
    """

    core: Float[Tensor, "*heads r r"]
    singular: Float[Tensor, "*heads d"]
    product: Float[Tensor, "*heads d d"]


def bilinear_form(left: Float[Tensor, "*heads d D"], right: Float[Tensor, "*heads d D"]) -> Form:
    """M = leftᵀ right of each head, in fp64, by the triangle of its 2d columns: no D × D matrix is made.

    The triangle is the Cholesky factor of their Gram matrix; where a head's columns are (nearly) dependent, that of a
    QR decomposition. So it holds for factors of any rank, zero heads and left = right included.
    """
    d = left.shape[-2]
    rows = torch.cat((left, right), dim=-2).double()
    gram = rows @ rows.mT
    lower, failed = torch.linalg.cholesky_ex(gram)
    pivots = lower.diagonal(dim1=-2, dim2=-1)
    if failed.any() or (pivots.amin(-1) < _DEPENDENT * pivots.amax(-1)).any():
        triangle = torch.linalg.qr(rows.mT, mode="r").R
    else:
        triangle = lower.mT
    core = triangle[..., :d] @ triangle[..., d:].mT  # its rows from d on are zero
    return Form(core, torch.linalg.svdvals(core[..., :d, :]), gram[..., d:, :d])


def singular_figures(form: Form) -> dict[str, Float[Tensor, "*heads"]]:
    """Effective ranks, which need no common space of the two sides: they hold for cross-attention too."""
    return {
        "stable_rank": stable_rank(form.singular),
        "participation_ratio": participation_ratio(form.singular.square()),
    }


def symmetric_figures(form: Form) -> dict[str, Float[Tensor, "*heads"]]:
    r"""Figures of a form on one space: both sides read the same stream.

    Returns:
        ``signed_mass``, Σλ/Σ|λ| over eigenvalues of the symmetric part: 1, a token attends to those like itself;
        ``symmetry``, tr(M²)/‖M‖_F²: 1 symmetric, −1 skew (Saponati et al. 2025); ``reality``, ΣRe μ/Σ|μ| over the
        eigenvalues of M: of an output matrix times one of values, copying (Elhage et al. 2021);
        ``source/positive`` and ``source/negative``, eigenvalues of the symmetric part by sign. By Sylvester's law of
        inertia there are d of each whenever L and R together have rank 2d, trained or not: they say nothing.
    """
    core = form.core
    eigenvalues = torch.linalg.eigvalsh((core + core.mT) / 2)
    least = _ROUND_OFF * eigenvalues.abs().amax(-1, keepdim=True)
    own = torch.linalg.eigvals(form.product)
    return {
        "signed_mass": eigenvalues.sum(-1) / eigenvalues.abs().sum(-1),
        "symmetry": (core * core.mT).sum((-1, -2)) / core.square().sum((-1, -2)),
        "reality": own.real.sum(-1) / own.abs().sum(-1),
        "source/positive": (eigenvalues > least).sum(-1).double(),
        "source/negative": (eigenvalues < -least).sum(-1).double(),
    }


def trace_cosine(left: Float[Tensor, "*heads d D"], right: Float[Tensor, "*heads d D"]) -> Float[Tensor, "*heads"]:
    r"""⟨L, R⟩ / (‖L‖ ‖R‖) = tr M / (‖L‖ ‖R‖). Of independent Gaussians 0 ± 1/√(dD).

    >>> trace_cosine(torch.eye(2), torch.eye(2))
    tensor(1., dtype=torch.float64)
    """
    left, right = left.double(), right.double()
    inner, norms = (left * right).sum((-1, -2)), left.square().sum((-1, -2)) * right.square().sum((-1, -2))
    return inner / norms.sqrt()


def stream_gram(matrix: Float[Tensor, "rows D"]) -> Float[Tensor, "D D"]:
    """G = WᵀW − (tr WᵀW / D) I, of length 1: which directions of the stream a matrix reads, whatever its rows' basis.

    Permuting neurons or rotating a head leaves it as it is.
    """
    gram = matrix.mT @ matrix
    gram.diagonal().sub_(gram.diagonal().mean())
    return gram / gram.norm()


def positive_share(queries: Float[Tensor, "n stream"], keys: Float[Tensor, "n stream"]) -> float:
    """Share of positive eigenvalues of the symmetric part of W_q W_kᵀ, as it has been published.

    That lets every head's queries meet every head's keys, which no model does. Unrelated matrices give ½, give or take
    an eigenvalue.

    >>> positive_share(torch.eye(2), torch.diag(torch.tensor([1.0, -1.0])))
    0.5
    """
    product = queries @ keys.mT
    return float((torch.linalg.eigvalsh(product + product.mT) > 0).double().mean())
