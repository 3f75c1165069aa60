r"""Causal linear attention by chunks: y_t = Σ_{k ≤ t} (φ_q · φ_k) v_k in O(T).

Within a chunk of C tokens the product of queries and keys is taken as it is, before it the state S = Σ φ_k v⁺_kᵀ:
O_c = φ(Q_c) S_c + tril(φ(Q_c) φ(K_c)ᵀ) V⁺_c, where v⁺ = [v ‖ 1] carries the sum of weights along.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

CHUNK = 64


def causal_linear(
    query: Float[Tensor, "B H T F"], key: Float[Tensor, "B H T F"], value: Float[Tensor, "B H T h"], chunk: int = CHUNK
) -> tuple[Float[Tensor, "B H T h"], Float[Tensor, "B H T 1"]]:
    """Weighted sums of values, and the sums of the weights, of each query.

    >>> ones = torch.ones(1, 1, 3, 1)
    >>> causal_linear(ones, ones, ones)[1].flatten()
    tensor([1., 2., 3.])
    """
    B, H, T, _ = query.shape
    C = min(chunk, T)
    value = F.pad(value.to(query.dtype), (0, 1), value=1.0)
    if missing := -T % C:
        query, key, value = (F.pad(part, (0, 0, 0, missing)) for part in (query, key, value))
    query, key, value = (part.reshape(B, H, -1, C, part.shape[-1]) for part in (query, key, value))
    within = (query @ key.mT).tril() @ value
    if query.shape[2] > 1:
        states = key[:, :, :-1].mT @ value[:, :, :-1]  # what each chunk but the last adds
        summed = states.cumsum(2, dtype=torch.promote_types(states.dtype, torch.float32))
        before = F.pad(summed, (0, 0, 0, 0, 1, 0)).to(states.dtype)
        within = within + query @ before
    out = within.reshape(B, H, -1, value.shape[-1])[:, :, :T]
    return out[..., :-1], out[..., -1:]


def add_to_state(state: Tensor | None, key: Float[Tensor, "B H T F"], value: Float[Tensor, "B H T h"]) -> Tensor:
    """S + Σ φ_k v⁺_kᵀ, (B, H, F, h + 1)."""
    added = key.mT @ F.pad(value, (0, 1), value=1.0)
    return added if state is None else state + added


def read_state(state: Tensor, query: Float[Tensor, "B H T F"]) -> tuple[Tensor, Tensor]:
    """Weighted sums of values, and the sums of the weights, of the tokens in a state."""
    out = query @ state
    return out[..., :-1], out[..., -1:]
