r"""The field: every token bends a few small simplices, and their shape gates the stream.

An edge, a triangle and a pentachoron (k = 1, 2, 4) hang at every token. The stream pushes their vertices about; edge
lengths and volume, normalised, open or close a gate on each dimension. Only the active dimensions are read or written:
the null space leaves bit for bit as it came.

On k = 1 the formula says less than it seems to: an edge has one squared length and its squared volume *is* that
number, so LayerNorm of two equal features is zero, the gate is a constant for each dimension (its biases still train),
and the expert's deformation receives a gradient of zero, up to rounding. The specified arithmetic is kept; a test
shows it.
"""

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from geometry import regular_simplex, shape_features
from modulators.arguments import check_field
from modulators.base import (
    Modulator,
    ResidualStream,
    at_least_fp32,
    logit,
    parameter_group,
)
from modulators.gating import gated


class SimplexExpert(nn.Module):
    """One simplex: its frozen regular template, how the stream deforms it, and what is read off its shape.

    Linear layers start as `torch.nn.Linear` does, the source's choice: a gate begins near one half, not at one.
    """

    template: Tensor

    def __init__(self, k: int, dim: int, n_active: int, validity_gate: bool) -> None:
        super().__init__()
        self.k = k
        self.n_features = k * (k + 1) // 2 + 1
        # Not persistent: it follows from k and dim, and a checkpoint holds no frozen tensor.
        self.register_buffer("template", regular_simplex(k, dim), persistent=False)
        self.to_deform = nn.Linear(n_active, (k + 1) * dim)
        self.norm = nn.LayerNorm(self.n_features)
        self.validity_proj = nn.Linear(self.n_features, 1) if validity_gate else None

    def normalised(self, shape: Float[Tensor, "tokens features"]) -> Float[Tensor, "tokens features"]:
        """LayerNorm of all squared edge lengths and the squared volume: the features."""
        weight, bias = (p.to(shape.dtype) for p in (self.norm.weight, self.norm.bias))
        return F.layer_norm(shape, self.norm.normalized_shape, weight, bias, self.norm.eps)

    def validity(self, features: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch 1"]:
        """sigmoid(Linear(features)), one number a token; it multiplies the gate."""
        assert self.validity_proj is not None
        return _linear(features, self.validity_proj).sigmoid()


class FieldModulator(Modulator):
    r"""a ← a · Π_k [(1 − α_lk) + α_lk · gate_k · validity_k] on the active dimensions a (A of D).

    Per expert k: vertices = regular k-simplex in `expert_edim` dimensions + `deform_scale` · Linear(a); features =
    LayerNorm([squared edge lengths, squared volume]); gate_k = sigmoid(Linear(features)), A wide; validity_k =
    sigmoid(Linear(features)), one number. A gate is at most 1, so a modulated dimension only ever shrinks, by at
    least 1 − α per expert.

    Args:
        stream: the backbone's sizes.
        expert_ks: dimension of each expert's simplex.
        expert_edim: dimension of the space that the simplices live in.
        initial_alpha: every α at the start.
        alpha_min: the lower bound that α stays within.
        alpha_max: the upper one.
        alpha_bound: ``smooth``: α = α_min + (α_max − α_min) sigmoid(θ); ``clamp``: α = clamp(sigmoid(θ), …), the
            source's, which gets no gradient once it is out of bounds.
        null_space_fraction: this part of D, rounded down, is never touched.
        null_space_position: ``tail``: the last dimensions; ``scattered``: a draw by `null_space_seed`.
        deform_scale: how far a unit of the linear map moves a vertex, in edge lengths.
        validity_gate: whether validity multiplies the gate; without it there is no such head.
        learnable_alpha: if not, the logits are a buffer.
        null_space_seed: of the scattered null space.

    Raises:
        ValueError: an argument out of its range, by name.
    """

    scattered_dims: Tensor | None

    def __init__(
        self,
        stream: ResidualStream,
        expert_ks: Sequence[int] = (1, 2, 4),
        expert_edim: int = 8,
        initial_alpha: float = 0.01,
        alpha_min: float = 0.001,
        alpha_max: float = 0.35,
        alpha_bound: Literal["smooth", "clamp"] = "smooth",
        null_space_fraction: float = 0.25,
        null_space_position: Literal["tail", "scattered"] = "tail",
        deform_scale: float = 0.05,
        validity_gate: bool = True,
        learnable_alpha: bool = True,
        null_space_seed: int = 42,
    ) -> None:
        init_args = {
            "expert_ks": list(expert_ks),
            "expert_edim": expert_edim,
            "initial_alpha": initial_alpha,
            "alpha_min": alpha_min,
            "alpha_max": alpha_max,
            "alpha_bound": alpha_bound,
            "null_space_fraction": null_space_fraction,
            "null_space_position": null_space_position,
            "deform_scale": deform_scale,
            "validity_gate": validity_gate,
            "learnable_alpha": learnable_alpha,
            "null_space_seed": null_space_seed,
        }
        check_field(
            expert_ks,
            expert_edim,
            initial_alpha,
            alpha_min,
            alpha_max,
            alpha_bound,
            null_space_fraction,
            null_space_position,
            deform_scale,
            null_space_seed,
        )
        super().__init__(stream, init_args)
        self.alpha_min, self.alpha_max, self.smooth = alpha_min, alpha_max, alpha_bound == "smooth"
        self.deform_scale, self.expert_edim = deform_scale, expert_edim
        self.validity_gate = validity_gate
        self.n_active = stream.d_model - int(null_space_fraction * stream.d_model)
        self.register_buffer("scattered_dims", None, persistent=False)
        # Left None where the active dimensions are the first ones, which are read in place.
        if null_space_position == "scattered" and self.n_active < stream.d_model:
            self.scattered_dims = self._draw_dims(null_space_seed)

        self.experts = nn.ModuleDict(
            {f"k{k}": SimplexExpert(k, expert_edim, self.n_active, validity_gate) for k in expert_ks}
        )
        self.gate_projs = nn.ModuleDict(
            {name: nn.Linear(expert.n_features, self.n_active) for name, expert in self._experts()}
        )
        start = (initial_alpha - alpha_min) / (alpha_max - alpha_min) if self.smooth else initial_alpha
        self._register_alpha_logits(torch.full((stream.n_layers, len(expert_ks)), logit(start)), learnable_alpha)

    def _context(self, token_ids: Tensor | None) -> tuple[Tensor, Tensor]:
        """One map from the active dimensions to the vertices of all experts, their templates in its bias."""
        layers = [expert.to_deform for _, expert in self._experts()]
        weight = self.deform_scale * torch.cat([linear.weight for linear in layers])
        templates = torch.cat([expert.template.flatten() for _, expert in self._experts()])
        bias = torch.add(templates, torch.cat([linear.bias for linear in layers]), alpha=self.deform_scale)
        return at_least_fp32(weight), at_least_fp32(bias)

    def _modulate(self, residual: Tensor, alpha: Tensor, layer: int, context: tuple[Tensor, Tensor]) -> Tensor:
        if self.scattered_dims is None:
            rows = residual.reshape(-1, self.stream.d_model)
            return self._gated(rows, alpha, context).view(residual.shape)
        rows = residual.index_select(-1, self.scattered_dims)
        active = self._gated(rows.view(-1, self.n_active), alpha, context).view(rows.shape)
        return residual.index_copy(-1, self.scattered_dims, active)

    def _gated(self, rows: Tensor, alpha: Tensor, context: tuple[Tensor, Tensor]) -> Tensor:
        """Rows (N, …), of N tokens, whose first dimensions are the active ones."""
        active = at_least_fp32(rows[:, : self.n_active])  # (N, A)
        weight, bias = (tensor.to(active.dtype) for tensor in context)
        vertices = torch.addmm(bias[:, None], weight, active.t())  # (coordinates, N)
        shapes = self._shapes(vertices.view(len(bias) // self.expert_edim, self.expert_edim, len(rows)))
        features = [expert.normalised(shape.t()) for (_, expert), shape in zip(self._experts(), shapes, strict=True)]
        alpha = alpha.to(active.dtype)
        strength = alpha[:, None].expand(-1, len(rows))  # (experts, N)
        if self.validity_gate:
            valid = [expert.validity(x)[:, 0] for (_, expert), x in zip(self._experts(), features, strict=True)]
            strength = strength * torch.stack(valid)
        gates = [cast(nn.Linear, self.gate_projs[name]) for name in self.experts]
        weights = [linear.weight.to(active.dtype) for linear in gates]
        biases = [linear.bias.to(active.dtype) for linear in gates]
        return gated(rows, strength, 1 - alpha, features, weights, biases)

    def _shapes(self, vertices: Tensor) -> tuple[Tensor, ...]:
        """Edges and volume of each expert's simplex, (features, N) each, of vertices (V, dim, N)."""
        experts = [expert for _, expert in self._experts()]
        shapes = shape_features(vertices, [expert.k for expert in experts])
        return torch.split(shapes, [expert.n_features for expert in experts])

    @property
    def alphas(self) -> Float[Tensor, "layers experts"]:
        free = at_least_fp32(self.alpha_logits).sigmoid()
        if self.smooth:
            return self.alpha_min + (self.alpha_max - self.alpha_min) * free
        return free.clamp(self.alpha_min, self.alpha_max)

    @property
    def expert_names(self) -> tuple[str, ...]:
        return tuple(self.experts)

    @property
    def active_dims(self) -> Tensor:
        if self.scattered_dims is None:
            return torch.arange(self.n_active, device=self.alpha_logits.device)
        return self.scattered_dims

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Experts learn at a tenth of the rate, alphas at half; gates at the whole one."""
        return [
            *parameter_group("experts", list(self.experts.parameters()), 0.1 * lr, weight_decay),
            *parameter_group("gates", list(self.gate_projs.parameters()), lr, weight_decay),
            *parameter_group("alphas", [self.alpha_logits], 0.5 * lr, 0.0),
        ]

    def _experts(self) -> list[tuple[str, SimplexExpert]]:
        return [(name, cast(SimplexExpert, expert)) for name, expert in self.experts.items()]

    def _draw_dims(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(self.stream.d_model, generator=generator)[: self.n_active].sort().values


def _linear(features: Tensor, linear: nn.Linear) -> Tensor:
    return F.linear(features, linear.weight.to(features.dtype), linear.bias.to(features.dtype))
