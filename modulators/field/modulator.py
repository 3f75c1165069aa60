r"""The field: each token deforms a few small simplices, and their shape gates the stream.

Each token has an edge, a triangle and a pentachoron (k = 1, 2, 4). The stream moves their vertices; the normalised edge
lengths and volume set a gate for each dimension. Only the active dimensions are read or written: the null space is
unchanged, bit for bit.

For k = 1 the gate does not depend on the token: an edge has one squared length, and its squared volume *is* that
number, so LayerNorm of two equal features is zero, the gate is a constant for each dimension (its biases still train),
and the expert's deformation has a gradient of zero, up to rounding. The specified arithmetic is kept; a test shows it.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from modulant.backbones.stream import ResidualStream
from modulant.geometry import regular_simplex
from modulant.settings import (
    HalfOpenUnitInterval,
    Interval,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
    Seed,
    checked,
)
from modulators.arguments import check_field
from modulators.base import (
    Modulator,
    at_least_fp32,
    logit,
    parameter_group,
)
from modulators.field.arithmetic import FieldWeights, modulated_rows


class SimplexExpert(nn.Module):
    """One simplex: its frozen regular template, its deformation by the stream, and the features of its shape.

    Linear layers start as `torch.nn.Linear` does, the source's choice: a gate begins near one half, not at one.
    """

    template: Tensor

    def __init__(self, k: int, dim: int, n_active: int, validity_gate: bool) -> None:
        super().__init__()
        self.k, self.dim = k, dim
        self.n_features = k * (k + 1) // 2 + 1
        # Not persistent: it follows from k and dim, and a checkpoint holds no frozen tensor.
        self.register_buffer("template", regular_simplex(k, dim), persistent=False)
        self.to_deform = nn.Linear(n_active, (k + 1) * dim)
        self.norm = nn.LayerNorm(self.n_features)
        self.validity_proj = nn.Linear(self.n_features, 1) if validity_gate else None

    def restore(self) -> None:
        """Make the template again."""
        with torch.device("cpu"):
            template = regular_simplex(self.k, self.dim)
        self.template = template.to(self.to_deform.weight)


class FieldModulator(Modulator):
    r"""a ← a · Π_k [(1 − α_lk) + α_lk · gate_k · validity_k] on the active dimensions a (A of D).

    Per expert k: vertices = regular k-simplex in `expert_edim` dimensions + `deform_scale` · Linear(a); features =
    LayerNorm([squared edge lengths, squared volume]); gate_k = sigmoid(Linear(features)), A wide; validity_k =
    sigmoid(Linear(features)), one number. A gate is at most 1, so a modulated dimension only ever shrinks, by at
    least 1 − α per expert.

    Args:
        stream: the backbone's sizes.
        expert_ks: one expert a number, the dimension of its simplex: edge, triangle, pentachoron.
        expert_edim: dimensions of the space that the simplices live in.
        initial_alpha: injection strength at the start, of every layer and expert.
        alpha_min: lower bound of alpha.
        alpha_max: upper bound of alpha.
        alpha_bound: ``smooth``, or ``clamp``, the source's, which loses its gradient at a bound. Smooth is α = α_min +
            (α_max − α_min) sigmoid(θ), clamp α = clamp(sigmoid(θ), α_min, α_max).
        null_space_fraction: share of the dimensions that is never touched, rounded down.
        null_space_position: ``tail``: the last dimensions; ``scattered``: drawn by null_space_seed.
        deform_scale: how far a unit of the linear map moves a vertex, in edge lengths.
        validity_gate: multiply the gate by the validity; false: no such head, the source's arithmetic.
        learnable_alpha: false keeps alpha at its initial value.
        null_space_seed: of the scattered null space.

    Raises:
        ValueError: an argument out of its range, by name.
    """

    scattered_dims: Tensor | None

    @checked
    def __init__(
        self,
        stream: ResidualStream,
        expert_ks: Sequence[PositiveInt] = (1, 2, 4),
        expert_edim: PositiveInt = 8,
        initial_alpha: OpenUnitInterval = 0.01,
        alpha_min: HalfOpenUnitInterval = 0.001,
        alpha_max: Annotated[float, Interval(exclusiveMinimum=0, maximum=1)] = 0.35,
        alpha_bound: Literal["smooth", "clamp"] = "smooth",
        null_space_fraction: HalfOpenUnitInterval = 0.25,
        null_space_position: Literal["tail", "scattered"] = "tail",
        deform_scale: PositiveFloat = 0.05,
        validity_gate: bool = True,
        learnable_alpha: bool = True,
        null_space_seed: Seed = 42,
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
        check_field(expert_ks, expert_edim, initial_alpha, alpha_min, alpha_max)
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
        self.null_space_seed = null_space_seed
        self.register_load_state_dict_post_hook(_restore_constants)  # type: ignore[no-untyped-call]
        start = (initial_alpha - alpha_min) / (alpha_max - alpha_min) if self.smooth else initial_alpha
        self._register_alpha_logits(torch.full((stream.n_layers, len(expert_ks)), logit(start)), learnable_alpha)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FieldModulator":
        constants = {name: buffer for name, buffer in self.named_buffers() if buffer.is_meta}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if constants and not self.alpha_logits.is_meta:  # to_empty: these have no values either
            for _, expert in self._experts():
                expert.template = expert.template.to("meta")
            _restore_constants(self)
        return self

    def _context(self, token_ids: Tensor | None) -> FieldWeights:
        """All experts' weights side by side."""
        experts, gates = [expert for _, expert in self._experts()], self._gate_projs()
        deforms = [expert.to_deform for expert in experts]
        templates = torch.cat([expert.template.flatten() for expert in experts])
        length = max(expert.n_features for expert in experts) + 1

        one = templates.new_ones(1)
        validity = None
        if self.validity_gate:
            heads = [cast(nn.Linear, expert.validity_proj) for expert in experts]
            validity = torch.stack([_padded(head.weight[0], head.bias, length) for head in heads])
        return FieldWeights(
            vertices=self.deform_scale * torch.cat([linear.weight for linear in deforms]),
            offsets=torch.add(templates, torch.cat([linear.bias for linear in deforms]), alpha=self.deform_scale),
            norm=torch.stack([_padded(expert.norm.weight, 0 * one, length) for expert in experts]),
            shift=torch.stack([_padded(expert.norm.bias, one, length) for expert in experts]),
            validity=validity,
            gates=torch.stack([_padded(linear.weight, linear.bias[:, None], length).t() for linear in gates]),
        )

    def _modulate(self, residual: Tensor, alpha: Tensor, layer: int, context: FieldWeights) -> Tensor:
        dtype = torch.promote_types(residual.dtype, torch.float32)
        weights = FieldWeights(*(None if weight is None else weight.to(dtype) for weight in context))  # type: ignore[arg-type]
        alpha = alpha.to(dtype)
        ks = [expert.k for _, expert in self._experts()]
        if self.scattered_dims is None:
            rows = residual.reshape(-1, self.stream.d_model)
            return modulated_rows(rows, alpha, weights, ks).view(residual.shape)
        active = residual.index_select(-1, self.scattered_dims)
        rows = modulated_rows(active.view(-1, self.n_active), alpha, weights, ks)
        return residual.index_copy(-1, self.scattered_dims, rows.view(active.shape))

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

    def _gate_projs(self) -> list[nn.Linear]:
        return [cast(nn.Linear, self.gate_projs[name]) for name in self.experts]

    def _draw_dims(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(self.stream.d_model, generator=generator, device="cpu")
        return order[: self.n_active].sort().values.to(torch.get_default_device())


def _restore_constants(modulator: FieldModulator, *_: Any) -> None:
    """Make again what follows from the arguments, after a modulator built on meta has got its tensors."""
    experts = [expert for _, expert in modulator._experts()]
    if modulator.alpha_logits.is_meta or not experts[0].template.is_meta:
        return
    for expert in experts:
        expert.restore()
    if modulator.scattered_dims is not None:
        with torch.device(modulator.alpha_logits.device):
            modulator.scattered_dims = modulator._draw_dims(modulator.null_space_seed)


def _padded(weight: Tensor, last: Tensor, length: int) -> Tensor:
    """(…, features) to (…, length): zeros, and `last` beside the feature that is always one."""
    return torch.cat([F.pad(weight, (0, length - 1 - weight.shape[-1])), last], dim=-1)
