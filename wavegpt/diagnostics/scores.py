r"""What an attention computes from the features that `Observed` holds: weights, and the parts of its logits.

Of interference a logit is cross + key + query: 2s⟨z_q, z_k⟩, s Σ A_k² and s Σ A_q², with s the scale of a softmax and 1
without one. The query's part is the same for all keys. Other kinds have a cross term alone.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from wavegpt.attention.base import Attention
from wavegpt.attention.features import packed
from wavegpt.attention.kernels import Features, Naive, Softmax, Sum, pairwise
from wavegpt.attention.phased import Interference
from wavegpt.attention.places import Places

_SIGN = {"full": 1.0, "cross": 0.0, "difference": -1.0}


class Scores(NamedTuple):
    """Parts of the logits.

    Attributes:
        cross: of query and key, (B, H, Q, K).
        key: of the key alone, (B, H, 1, K).
        query: of the query alone, (B, H, Q, 1).
    """

    cross: Tensor
    key: Tensor
    query: Tensor

    @property
    def total(self) -> Float[Tensor, "B H Q K"]:
        """Their sum."""
        return self.cross + self.key + self.query


def weights_of(attention: Attention, query: Features, key: Features, places: Places) -> Float[Tensor, "B H Q K"]:
    """Weights of the values: what the module's own mix makes of one-hot values."""
    K = key[0].shape[-2]
    if not attention.linear:
        one_hot = torch.eye(K, dtype=key[0].dtype, device=key[0].device).expand(*key[0].shape[:2], K, K)
        return attention.mix(query, key, one_hot, places)
    products = query[0] @ key[0].mT
    allowed = places.allowed(K)
    if allowed is None and products.shape[-2] > 1:
        allowed = torch.ones(products.shape[-2:], dtype=torch.bool, device=products.device).tril()
    if allowed is not None:
        products = products.masked_fill(~allowed, 0)
    return attention._normalised(products, products.sum(-1, keepdim=True), places)


def scores_of(attention: Attention, query: Features, key: Features) -> Scores:
    """Parts of the logits of all pairs, those of later keys too."""
    if not isinstance(attention, Interference):
        cross = query[0] @ key[0].mT
        return Scores(cross, torch.zeros_like(cross[..., :1, :]), torch.zeros_like(cross[..., :1]))
    sign = _SIGN[attention.about.terms]
    if attention.about.phase == "source":
        A_q, phi_q, omega_q, t_q, scale = query
        A_k, phi_k, omega_k, t_k = key
        pairs = [(q.unsqueeze(-2), k.unsqueeze(-3)) for q, k in ((omega_q, omega_k), (t_q, t_k), (phi_q, phi_k))]
        (o_q, o_k), (p_q, p_k), (f_q, f_k) = pairs
        cross = pairwise(A_q.unsqueeze(-2), A_k.unsqueeze(-3), (o_q - o_k) * (p_q - p_k) + f_q - f_k, "cross", "none")
        scale = scale if attention.about.normalise == "softmax" else torch.ones_like(scale)
        S_q, S_k = A_q.square().sum(-1, keepdim=True), A_k.square().sum(-1, keepdim=True)
        return Scores(scale * cross, sign * scale[..., :1, :] * S_k.mT, sign * scale * S_q)
    z_q, z_k, factor = _phasors(attention, query, key)
    S_q, S_k = z_q.square().sum(-1, keepdim=True), z_k.square().sum(-1, keepdim=True)
    return Scores(2 * factor * (z_q @ z_k.mT), sign * factor * S_k.mT, sign * factor * S_q)


def _phasors(attention: Interference, query: Features, key: Features) -> tuple[Tensor, Tensor, float | Tensor]:
    """[Re z ‖ Im z] of queries and keys, and the scale, by the form's features."""
    scale = attention._scale() if attention.about.normalise == "softmax" else 1.0
    if isinstance(attention.form, Naive):
        return packed(query[0], query[1]), packed(key[0], key[1]), scale
    width = 2 * attention.W
    if isinstance(attention.form, Softmax):
        return query[0][..., :width] / (2 * scale), key[0][..., :width], scale
    if isinstance(attention.form, Sum):
        return query[0][..., 2:] / 2**0.5, key[0][..., 2:] / 2**0.5, scale
    return query[0], key[0], scale  # of an energy
