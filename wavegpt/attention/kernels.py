r"""Interference attention: the plain formula and its exact faster forms.

With phasors z = A e^{iθ} per wave w, the intensity of a query and a key is

    I = Σ_w |z_q + z_k|² = S_q + S_k + 2⟨z_q, z_k⟩,   S = Σ_w A²,   ⟨z_q, z_k⟩ = Σ_w A_q A_k cos(θ_q − θ_k),

and the energy E = Σ_w (A_q + A_k)². The cosine of a difference is a product of 2W features: only the naive form
holds anything of size T²W.

    softmax   S_q is the same for all keys and cancels; S_k is a bias of the key. Queries [2z_q ‖ 1], keys [z_k ‖ S_k].
    sum       I ≥ 0 is itself a kernel: queries [S_q ‖ 1 ‖ √2 z_q], keys [1 ‖ S_k ‖ √2 z_k]; linear time.
    energy    I / E is a quotient of two products; it has no finite feature map.

A form has `query` and `key`, which make features of (B, H, T, W), and `attend`. Keys may be of earlier tokens too.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from wavegpt.attention.features import packed
from wavegpt.attention.linear import causal_linear
from wavegpt.config.attention import check_impl

Features = tuple[Tensor, ...]
Scale = float | int | Tensor  # a tensor broadcasts to (B, H, T, 1)
_BIAS = {"full": 1.0, "cross": 0.0, "difference": -1.0}
EPSILON = 1e-8  # of denominators
_ALIGN = 8  # flash kernels of a GPU take head sizes that are multiples of this; those of a CPU take all
_QUERIES = 64  # that the source's form takes at a time


class Form:
    """Base: one way to compute an attention."""

    def query(self, amplitude: Tensor, phase: Tensor, scale: Scale) -> Features:
        """Features of queries."""
        raise NotImplementedError

    def key(self, amplitude: Tensor, phase: Tensor) -> Features:
        """Features of keys, which a cache holds."""
        raise NotImplementedError

    def attend(self, query: Features, key: Features, value: Tensor, allowed: Tensor | None) -> Tensor:
        """Weighted values. `allowed` is as `visible` makes it."""
        raise NotImplementedError


def interference_attention(
    amplitude_q: Float[Tensor, "B H T W"],
    phase_q: Float[Tensor, "B H T W"],
    amplitude_k: Float[Tensor, "B H T W"],
    phase_k: Float[Tensor, "B H T W"],
    value: Float[Tensor, "B H T h"],
    *,
    terms: str = "full",
    normalise: str = "softmax",
    scale: Scale = 1.0,
    impl: str = "naive",
) -> Float[Tensor, "B H T h"]:
    r"""Causal attention y_t = Σ_{k ≤ t} weight_tk v_k by the interference of phasors A e^{iθ}.

    Logits are L = I (`full`), 2⟨z_q, z_k⟩ (`cross`) or −Σ|z_q − z_k|² (`difference`), weights softmax(scale · L),
    I / ΣI (`sum`) or I / E (`energy`). All forms are equal.

    Args:
        amplitude_q: A ≥ 0 of queries.
        phase_q: θ of queries, rad; positions are in it.
        amplitude_k: A ≥ 0 of keys.
        phase_k: θ of keys.
        value: v.
        terms: full, cross or difference.
        normalise: softmax, sum or energy; the last two need full and do not use `scale`.
        scale: of the logits; a tensor broadcasts to (B, H, T, 1).
        impl: naive, matmul, sdpa (softmax alone), chunked (sum alone), or auto, the fastest.

    Raises:
        ValueError: there is no such option or combination.

    >>> one = torch.ones(1, 1, 3, 2)
    >>> interference_attention(one, one, one, one, torch.arange(3.0).view(1, 1, 3, 1)).flatten()
    tensor([0.0000, 0.5000, 1.0000])
    """
    form = form_of(terms, normalise, impl)
    return form.attend(form.query(amplitude_q, phase_q, scale), form.key(amplitude_k, phase_k), value, None)


def form_of(terms: str, normalise: str, impl: str = "auto") -> Form:
    """The form of interference attention.

    Raises:
        ValueError: there is no such option or combination.
    """
    for name, given, known in (
        ("terms", terms, tuple(_BIAS)),
        ("normalise", normalise, ("softmax", "sum", "energy")),
        ("impl", impl, ("auto", "naive", "matmul", "sdpa", "chunked")),
    ):
        if given not in known:
            raise ValueError(f"{name} is {given!r}; it must be one of {', '.join(known)}")
    if normalise != "softmax" and terms != "full":
        raise ValueError(f"normalise is {normalise}, but terms is {terms}; it needs terms: full")
    check_impl(impl, normalise)
    if impl == "naive":
        return Naive(terms, normalise)
    if normalise == "softmax":
        return Softmax(terms, fused=impl != "matmul")
    return Energy() if normalise == "energy" else Sum(chunked=impl != "matmul")


def visible(
    queries: int, keys: int, query_segments: Tensor | None, key_segments: Tensor | None, device: torch.device
) -> Bool[Tensor, "B 1 Q K"] | None:
    """Which keys a query sees: those up to itself, of its own segment. The queries are the last tokens of the keys'.

    Returns:
        None where it is plain: as many queries as keys and one segment, or one query that sees all.
    """
    if query_segments is None and queries in (1, keys):
        return None
    allowed = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)[None, None]
    if query_segments is not None and key_segments is not None:
        allowed = allowed & (query_segments[:, None, :, None] == key_segments[:, None, None, :])
    return allowed


def softmax_attention(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
    """softmax(query · key) value by fused attention; the scale is in the query."""
    causal = allowed is None and query.shape[-2] > 1
    query, key = query.to(value.dtype), key.to(value.dtype)  # features are fp32 at least; angles are in them no more
    return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, is_causal=causal, scale=1.0)


def weighted(weights: Tensor, value: Tensor, allowed: Tensor | None, normalise: str, epsilon: float = 0.0) -> Tensor:
    """Values by weights (…, Q, K) after the mask; `softmax` takes logits, `sum` makes the weights sum to 1."""
    value = value.to(weights.dtype)
    if allowed is None and weights.shape[-2] > 1:
        allowed = torch.ones(weights.shape[-2:], dtype=torch.bool, device=weights.device).tril()
    if normalise == "softmax":
        return (weights if allowed is None else weights.masked_fill(~allowed, -torch.inf)).softmax(-1) @ value
    if allowed is not None:
        weights = weights.masked_fill(~allowed, 0)
    if normalise == "sum":
        return (weights @ value) / (weights.sum(-1, keepdim=True) + epsilon)
    return weights @ value


class Naive(Form):
    """The formula as it stands, (B, H, T, T, W): the reference."""

    def __init__(self, terms: str, normalise: str) -> None:
        self.terms, self.normalise = terms, normalise

    def query(self, amplitude: Tensor, phase: Tensor, scale: Scale) -> Features:
        factor = torch.as_tensor(scale, dtype=amplitude.dtype, device=amplitude.device).expand_as(amplitude[..., :1])
        return amplitude, phase, factor

    def key(self, amplitude: Tensor, phase: Tensor) -> Features:
        return amplitude, phase

    def attend(self, query: Features, key: Features, value: Tensor, allowed: Tensor | None) -> Tensor:
        A_q, theta_q, scale = query
        A_q, theta_q, A_k, theta_k = (
            A_q.unsqueeze(-2),
            theta_q.unsqueeze(-2),
            key[0].unsqueeze(-3),
            key[1].unsqueeze(-3),
        )
        weights = pairwise(A_q, A_k, theta_q - theta_k, self.terms, self.normalise)
        return weighted(weights * scale if self.normalise == "softmax" else weights, value, allowed, self.normalise,
                        EPSILON)  # fmt: skip


def pairwise(A_q: Tensor, A_k: Tensor, angle: Tensor, terms: str, normalise: str) -> Tensor:
    """Logits or weights (…, Q, K) of amplitudes and phase differences (…, Q, K, W)."""
    cross = 2 * A_q * A_k * angle.cos()
    if terms == "cross":
        return cross.sum(-1)
    squares = A_q.square() + A_k.square()
    intensity = (cross + squares if terms == "full" else cross - squares).sum(-1)
    return intensity / ((A_q + A_k).square().sum(-1) + EPSILON) if normalise == "energy" else intensity


class Softmax(Form):
    """softmax of products of 2W features and a key bias; by scaled dot-product attention if `fused`."""

    def __init__(self, terms: str, fused: bool) -> None:
        self.bias, self.fused = _BIAS[terms], fused

    def query(self, amplitude: Tensor, phase: Tensor, scale: Scale) -> Features:
        one = torch.as_tensor(scale, dtype=amplitude.dtype, device=amplitude.device).expand_as(amplitude[..., :1])
        return (self._features(amplitude * (2 * one), phase, one),)

    def key(self, amplitude: Tensor, phase: Tensor) -> Features:
        return (self._features(amplitude, phase, self.bias * amplitude.square().sum(-1, keepdim=True)),)

    def _features(self, amplitude: Tensor, phase: Tensor, last: Tensor) -> Tensor:
        """Padded to a width that flash kernels take."""
        width = 2 * amplitude.shape[-1] + bool(self.bias)
        padded = self.fused and amplitude.device.type != "cpu"
        return packed(amplitude, phase, last if self.bias else None, -width % _ALIGN if padded else 0)

    def attend(self, query: Features, key: Features, value: Tensor, allowed: Tensor | None) -> Tensor:
        if not self.fused:
            return weighted(query[0] @ key[0].mT, value, allowed, "softmax")
        width, h = query[0].shape[-1], value.shape[-1]
        if width <= h:
            padded = [F.pad(features, (0, h - width)) for features in (query[0], key[0])]
            return softmax_attention(padded[0], padded[1], value, allowed)
        return softmax_attention(query[0], key[0], F.pad(value, (0, width - h)), allowed)[..., :h]


class Sum(Form):
    """I / ΣI: in linear time if `chunked`, else as a product of queries and keys."""

    def __init__(self, chunked: bool) -> None:
        self.chunked = chunked

    def query(self, amplitude: Tensor, phase: Tensor, scale: Scale) -> Features:
        S = amplitude.square().sum(-1, keepdim=True)
        return (torch.cat([S, torch.ones_like(S), packed(2**0.5 * amplitude, phase)], dim=-1),)

    def key(self, amplitude: Tensor, phase: Tensor) -> Features:
        S = amplitude.square().sum(-1, keepdim=True)
        return (torch.cat([torch.ones_like(S), S, packed(2**0.5 * amplitude, phase)], dim=-1),)

    def attend(self, query: Features, key: Features, value: Tensor, allowed: Tensor | None) -> Tensor:
        if self.chunked and allowed is None and query[0].shape[-2] == key[0].shape[-2]:
            sums, total = causal_linear(query[0], key[0], value)
            return sums / (total + EPSILON)
        return weighted(query[0] @ key[0].mT, value, allowed, "sum", EPSILON)


class Energy(Form):
    """I / E as two products; O(T²) without W."""

    def query(self, amplitude: Tensor, phase: Tensor, scale: Scale) -> Features:
        return packed(amplitude, phase), amplitude

    def key(self, amplitude: Tensor, phase: Tensor) -> Features:
        return packed(amplitude, phase), amplitude

    def attend(self, query: Features, key: Features, value: Tensor, allowed: Tensor | None) -> Tensor:
        squares = query[1].square().sum(-1).unsqueeze(-1) + key[1].square().sum(-1).unsqueeze(-2)
        intensity = squares + 2 * (query[0] @ key[0].mT)
        energy = squares + 2 * (query[1] @ key[1].mT)
        return weighted(intensity / (energy + EPSILON), value, allowed, "energy")


def source_attention(
    query: Features,
    key: Features,
    value: Tensor,
    allowed: Tensor | None,
    terms: str,
    normalise: str,
) -> Tensor:
    """The source's phase (ω_q − ω_k)(t_q − t_k) + φ_q − φ_k: no difference of a query's and a key's, so T²W it is.

    Queries are taken `_QUERIES` at a time and computed again in the backward pass: memory O(T W) of each.

    Args:
        query: amplitude, φ, ω of (B, H, Q, W), positions t of (B, H, Q, 1), and the scale.
        key: amplitude, φ, ω and positions.
        value: v.
        allowed: as `visible` makes it.
        terms: as for `interference_attention`.
        normalise: as for `interference_attention`.
    """
    Q, K = query[0].shape[-2], key[0].shape[-2]
    if allowed is None and Q > 1:
        allowed = torch.ones(Q, K, dtype=torch.bool, device=value.device).tril()[None, None]

    def some(start: int, stop: int) -> Tensor:
        A_q, phi_q, omega_q, t_q, scale = (part[..., start:stop, :].unsqueeze(-2) for part in query)
        A_k, phi_k, omega_k, t_k = (part.unsqueeze(-3) for part in key)
        angle = (omega_q - omega_k) * (t_q - t_k) + (phi_q - phi_k)
        weights = pairwise(A_q, A_k, angle, terms, normalise)
        weights = weights * scale[..., 0] if normalise == "softmax" else weights
        return weighted(weights, value, None if allowed is None else allowed[..., start:stop, :], normalise, EPSILON)

    run: Callable[[int, int], Tensor] = some
    if Q > _QUERIES and torch.is_grad_enabled() and not torch.compiler.is_compiling():  # which chooses by itself
        run = lambda start, stop: checkpoint(some, start, stop, use_reentrant=False)  # noqa: E731
    return torch.cat([run(start, min(start + _QUERIES, Q)) for start in range(0, Q, _QUERIES)], dim=-2)
