r"""Forward and backward pass of the field on the rows of a stream, for all experts at once.

    e = W a + b                        edges of every expert's simplex from its first vertex, the template's in b
    x_e = LayerNorm_e([edges, volume]) features, padded to one length for all experts, with a constant 1 appended
    s_e = α_e · sigmoid(u_e · x_e)     strength: α times validity, one number per token
    f_e = 1 − α_e + s_e · gate_e       gate_e = sigmoid(G_e x_e), as wide as the active dimensions a
    a ← a · Π_e f_e

Autograd would record about a hundred small operations per layer and save ten times the size of the stream. Here the
experts are batched, and of tensors as wide as the stream only the stream itself is saved: the backward pass recomputes
the gates (a product with at most a dozen features, and a sigmoid) and works in place, on chunks of tokens that fit the
CPU's cache. With g = ∂L/∂out and r_e = ∂L/∂f_e = g · a · Π_{j ≠ e} f_j, which needs no division:

    ∂L/∂a = g · Π f_e + Wᵀ ∂L/∂e      ∂L/∂α_e = Σ (validity_e ∂L/∂s_e) − Σ r_e
    ∂L/∂s_e = Σ_width r_e · gate_e    ∂L/∂(G_e x_e) = s_e · r_e · gate_e (1 − gate_e)

The centred gate is the same arithmetic: since tanh z = 2 sigmoid(2 z) − 1,

    f_e = 1 + α_e · tanh(z) = 1 − α_e + s_e · sigmoid(2 z)    with s_e = 2 α_e,

and ``G`` here holds twice the weights of z. A vectorised sigmoid takes a tenth of the time of tanh. At z = 0 the factor
is exactly 1: the sum of the rounded 1 − α and of α rounds to 1.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from modulant.geometry import shape_features
from modulant.geometry.simplices.shapes import LARGEST, features_of, gradient_of_features, order_of
from modulators.base import plain_autograd

_EPS = 1e-5  # of LayerNorm, torch's default
_CHUNK = 1 << 19  # gates computed together on a CPU; on other devices all at once


class FieldWeights(NamedTuple):
    """Weights shared by all layers. E experts; P features, including the constant 1, padded to one length.

    Attributes:
        edges: W (coordinates, active), including the deformation scale: from each simplex's first vertex to its others.
            Of linear features these themselves take the place of the coordinates; of constant ones there are none.
        offsets: b (coordinates,).
        norm: LayerNorm weights (E, P), 0 for padding and for the constant.
        shift: LayerNorm biases (E, P), 0 for padding, 1 for the constant.
        validity: u (E, P), with the head's bias as weight of the constant; None without such a head.
        gates: G (E, P, active), 0 for padding, with biases as weights of the constant.
    """

    edges: Tensor
    offsets: Tensor
    norm: Tensor
    shift: Tensor
    validity: Tensor | None
    gates: Tensor


def modulated_rows(
    rows: Float[Tensor, "tokens width"],
    alpha: Float[Tensor, " experts"],
    weights: FieldWeights,
    ks: Sequence[int],
    centred: bool = False,
    linear: bool = False,
) -> Float[Tensor, "tokens width"]:
    """Return the rows with their active dimensions (the first ones) modulated; the others are copied, bit for bit.

    Computes in the common dtype of all arguments except `rows`; the result has the dtype of `rows`. Differentiable
    once; any number of times under torch.func.

    Args:
        rows: the stream.
        alpha: strength of each expert.
        weights: those of all experts.
        ks: dimensions of the experts' simplices.
        centred: f = 1 + α tanh instead of 1 − α + α validity sigmoid; without a validity.
        linear: what W a + b gives are the features, not edges whose shape is.
    """
    if plain_autograd() or (max(ks) > LARGEST and not linear):
        return autograd_modulated_rows(rows, alpha, weights, ks, centred, linear)
    form = _Form(tuple(ks), centred, linear)
    return cast(Tensor, _Modulated.apply(rows, alpha, form, *weights))  # type: ignore[no-untyped-call]


def autograd_modulated_rows(
    rows: Float[Tensor, "tokens width"],
    alpha: Float[Tensor, " experts"],
    weights: FieldWeights,
    ks: Sequence[int],
    centred: bool = False,
    linear: bool = False,
) -> Float[Tensor, "tokens width"]:
    """Same as `modulated_rows`, by autograd: any number of derivatives, more memory."""
    n_active = weights.edges.shape[1]
    active = rows[:, :n_active].to(alpha.dtype)
    out = active
    for e, shape in enumerate(expert_features(active, weights, ks, linear)):
        gate, validity = gate_and_validity(shape, weights, e)
        strength = (2 * alpha[e] if centred else alpha[e]).expand(len(rows))
        if validity is not None:
            strength = strength * validity
        out = out * torch.addcmul(1 - alpha[e], strength[:, None], gate)
    return torch.cat([out.to(rows.dtype), rows[:, n_active:]], dim=-1)


def expert_features(
    active: Float[Tensor, "tokens active"], weights: FieldWeights, ks: Sequence[int], linear: bool
) -> tuple[Tensor, ...]:
    """What each expert reads, before LayerNorm: (features, tokens). Squared edges and volume, unless `linear`."""
    shapes = torch.addmm(weights.offsets[:, None], weights.edges, active.t())
    if not linear:
        edges = _vectors(shapes, ks).split(list(ks))
        vertices = [points for some in edges for points in (torch.zeros_like(some[:1]), some)]
        shapes = shape_features(torch.cat(vertices), ks)
    return torch.split(shapes, [k * (k + 1) // 2 + 1 for k in ks])


def gate_and_validity(
    shape: Float[Tensor, "features tokens"], weights: FieldWeights, e: int
) -> tuple[Float[Tensor, "tokens active"], Float[Tensor, " tokens"] | None]:
    """The sigmoids of expert `e`: gate_e = sigmoid(G_e x_e), and the validity where there is such a head."""
    n = len(shape)
    x = F.layer_norm(shape.t(), (n,), weights.norm[e, :n], weights.shift[e, :n], _EPS)
    gate = torch.addmm(weights.gates[e, -1], x, weights.gates[e, :n]).sigmoid()
    if weights.validity is None:
        return gate, None
    return gate, (x @ weights.validity[e, :n] + weights.validity[e, -1]).sigmoid()


def uniformly_modulated_rows(
    rows: Float[Tensor, "tokens width"], alpha: Float[Tensor, " experts"], gates: Float[Tensor, "experts ones active"]
) -> Float[Tensor, "tokens width"]:
    """The centred gate of features that are all 1: one factor a dimension, the same for every token."""
    n_active = gates.shape[-1]
    factors = torch.addcmul(1 - alpha[:, None], 2 * alpha[:, None], gates.sum(1).sigmoid())
    active = rows[:, :n_active].to(alpha.dtype) * factors.prod(0)
    return torch.cat([active.to(rows.dtype), rows[:, n_active:]], dim=-1)


class _Form(NamedTuple):
    """What of `modulated_rows`' arguments is no tensor."""

    ks: tuple[int, ...]
    centred: bool
    linear: bool


class _Modulated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        alpha: Tensor,
        form: _Form,
        to_edges: Tensor,
        offsets: Tensor,
        norm: Tensor,
        shift: Tensor,
        to_validity: Tensor | None,
        gates: Tensor,
    ) -> Tensor:
        n_active = to_edges.shape[1]
        active = rows[:, :n_active].to(alpha.dtype)
        shapes = torch.addmm(offsets[:, None], to_edges, active.t())
        edges, gram, minors = None, None, None
        if form.linear:
            shapes = F.pad(shapes, (0, 0, 0, 1))
        else:
            shapes, (edges, gram, minors) = features_of(_vectors(shapes, form.ks), form.ks)
        normed, inverse = _normed(shapes, form.ks, form.linear)
        x = torch.mul(normed, norm[:, :, None]).add_(shift[:, :, None])  # (E, P, N)
        valid = None if to_validity is None else (x * to_validity[:, :, None]).sum(1).sigmoid_()
        strength = _strength(alpha, valid, len(rows), form.centred)
        out = torch.empty_like(rows, memory_format=torch.contiguous_format)
        out[:, n_active:] = rows[:, n_active:]
        kept = (1 - alpha)[:, None, None]
        for part in _parts(len(rows), gates):
            product, *others = _gates(x, gates, part).mul_(strength[:, part, None]).add_(kept)
            for other in others:
                product.mul_(other)
            _multiply(active[part], product, out[part, :n_active])
        ctx.save_for_backward(
            rows, alpha, to_edges, norm, shift, to_validity, gates, edges, gram, minors, normed, inverse, valid
        )
        ctx.form = form
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # The forward pass runs without autocast; the backward pass may be called inside it.
        with torch.autocast(device_type=grad.device.type, enabled=False):
            return _gradients(ctx, grad)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of the arguments of `_Modulated`, in their order."""
    rows, alpha, to_edges, norm, shift, to_validity, gates, edges, gram, minors, normed, inverse, valid = (
        ctx.saved_tensors
    )
    form: _Form = ctx.form
    n_active, kept = to_edges.shape[1], (1 - alpha)[:, None, None]
    active, above = rows[:, :n_active].to(alpha.dtype), grad[:, :n_active].to(alpha.dtype)
    x = torch.mul(normed, norm[:, :, None]).add_(shift[:, :, None])
    strength = _strength(alpha, valid, len(rows), form.centred)
    by_active = torch.empty_like(active, memory_format=torch.contiguous_format)
    by_x, by_strength, by_kept = torch.empty_like(x), torch.empty_like(x[:, 0]), torch.empty_like(x[:, 0])
    by_gates = torch.zeros_like(gates)
    for part in _parts(len(rows), gates):
        gate, own = _gates(x, gates, part), strength[:, part, None]
        factors = torch.mul(gate, own).add_(kept)
        by_factor = _products_of_others(factors)
        torch.mul(by_factor[0], factors[0], out=by_active[part]).mul_(above[part])
        by_factor.mul_(active[part] * above[part])
        torch.sum(by_factor, -1, out=by_kept[:, part])
        by_factor.mul_(gate)
        torch.sum(by_factor, -1, out=by_strength[:, part])
        by_gate = by_factor.addcmul_(by_factor, gate, value=-1)  # times the strength below, one number per token
        scaled = own.transpose(1, 2)
        by_gates.baddbmm_(x[:, :, part] * scaled, by_gate)
        torch.mul(torch.bmm(gates, by_gate.transpose(1, 2)), scaled, out=by_x[:, :, part])
    # Summed in one order, so that it is 0 where a centred gate is.
    by_alpha = (by_strength * (2 if form.centred else 1 if valid is None else valid)).sub_(by_kept).sum(1)
    by_validity = None
    if valid is not None:
        by_head = (by_strength * alpha[:, None]).mul_(valid).mul_(1 - valid)[:, None]
        by_validity = (x * by_head).sum(-1)
        by_x.addcmul_(to_validity[:, :, None], by_head)
    by_norm, by_shift = (by_x * normed).sum(-1), by_x.sum(-1)
    by_edges = _unnormed(by_x.mul_(norm[:, :, None]), normed, inverse, form.ks, form.linear)
    if not form.linear:
        by_edges = gradient_of_features(by_edges, edges, gram, minors, form.ks).view(len(to_edges), len(rows))
    by_rows = None
    if ctx.needs_input_grad[0]:
        by_active.addmm_(by_edges.t(), to_edges)
        by_rows = torch.empty_like(rows, memory_format=torch.contiguous_format)
        by_rows[:, :n_active], by_rows[:, n_active:] = by_active, grad[:, n_active:]
    return by_rows, by_alpha, None, by_edges @ active, by_edges.sum(1), by_norm, by_shift, by_validity, by_gates


def _vectors(edges: Tensor, ks: Sequence[int]) -> Tensor:
    """(coordinates, N) to (edges from first vertices, dim, N)."""
    return edges.view(sum(ks), len(edges) // sum(ks), edges.shape[1])


class _Rows(NamedTuple):
    """Index tables between concatenated features and the padded layout (kinds, length): longest kind plus one row."""

    length: int
    padded: Tensor  # (kinds · length,) feature index at each padded place; number of features, a zero, for padding
    place: Tensor  # (features,) padded place of each feature
    sizes: Tensor  # (kinds, 1, 1) number of features of each kind
    is_feature: Tensor  # (kinds, length, 1) 1 or 0


@lru_cache(maxsize=32)
def _rows_of_features(ks: tuple[int, ...], linear: bool, device: torch.device, dtype: torch.dtype) -> _Rows:
    """Index tables for features in the order of `features_of`, or, of linear ones, in that of the experts."""
    sizes = [k * (k + 1) // 2 + 1 for k in ks]
    length, none = max(sizes) + 1, sum(sizes)
    padded = torch.full((len(ks), length), none)
    order = torch.arange(none) if linear else torch.tensor(order_of(ks))
    for kind, some in enumerate(order.split(sizes)):
        padded[kind, : len(some)] = some
    is_feature = padded < none
    return _Rows(
        length=length,
        padded=padded.flatten().to(device),
        place=is_feature.flatten().nonzero()[:, 0][order.argsort()].to(device),
        sizes=torch.tensor(sizes, device=device, dtype=dtype).view(-1, 1, 1),
        is_feature=is_feature.to(device, dtype)[:, :, None],
    )


def _normed(features: Tensor, ks: tuple[int, ...], linear: bool) -> tuple[Tensor, Tensor]:
    """LayerNorm's x̂ of each expert's features, (E, P, N), 0 at padding; and 1 / standard deviation, (E, 1, N)."""
    tables = _rows_of_features(ks, linear, features.device, features.dtype)
    padded = features.index_select(0, tables.padded).view(len(ks), tables.length, features.shape[1])
    mean = padded.sum(1, keepdim=True).div_(tables.sizes)
    centred = padded.addcmul_(tables.is_feature, mean, value=-1)
    inverse = centred.square().sum(1, keepdim=True).div_(tables.sizes).add_(_EPS).rsqrt_()
    return centred.mul_(inverse), inverse


def _unnormed(by_normed: Tensor, normed: Tensor, inverse: Tensor, ks: tuple[int, ...], linear: bool) -> Tensor:
    """Gradient with respect to the features, (features, N), and that to x̂ (changed)."""
    tables = _rows_of_features(ks, linear, normed.device, normed.dtype)
    mean = by_normed.sum(1, keepdim=True).div_(tables.sizes)
    along = (by_normed * normed).sum(1, keepdim=True).div_(tables.sizes)
    by_features = by_normed.sub_(mean).addcmul_(normed, along, value=-1).mul_(inverse)
    return by_features.flatten(0, 1).index_select(0, tables.place)


def _strength(alpha: Tensor, valid: Tensor | None, tokens: int, centred: bool) -> Tensor:
    if centred:
        alpha = 2 * alpha
    return alpha[:, None].expand(-1, tokens) if valid is None else alpha[:, None] * valid


def _gates(x: Tensor, gates: Tensor, part: slice) -> Tensor:
    """Gates for a chunk of tokens, (E, chunk, active)."""
    return torch.bmm(x[:, :, part].transpose(1, 2), gates).sigmoid_()


def _products_of_others(factors: Tensor) -> Tensor:
    """Π_{j ≠ e} f_j for each e."""
    if len(factors) == 1:
        return torch.ones_like(factors)
    products, each = torch.empty_like(factors), factors.unbind()
    for e, product in enumerate(products.unbind()):
        first, *rest = each[:e] + each[e + 1 :]
        if not rest:
            product.copy_(first)
            continue
        torch.mul(first, rest[0], out=product)
        for other in rest[1:]:
            product.mul_(other)
    return products


def _multiply(active: Tensor, product: Tensor, out: Tensor) -> None:
    if out.dtype == product.dtype:
        torch.mul(active, product, out=out)
    else:
        out.copy_(product.mul_(active))


def _parts(tokens: int, gates: Tensor) -> list[slice]:
    """Chunks of tokens."""
    size = max(1, _CHUNK // (gates.shape[0] * gates.shape[2])) if gates.device.type == "cpu" else max(1, tokens)
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)]
