r"""The field: each token deforms a few small simplices, and their shape gates the stream.

Each token has an edge, a triangle and a pentachoron (k = 1, 2, 4). The stream moves their vertices; the normalised edge
lengths and volume set a gate for each dimension. Only the active dimensions are read or written: the null space is
unchanged, bit for bit.

For k = 1 the gate does not depend on the token: an edge has one squared length, and its squared volume *is* that
number, so LayerNorm of two equal features is zero, the gate is a constant for each dimension (its biases still train),
and the expert's deformation has a gradient of zero, up to rounding. The specified arithmetic is kept; a test shows it.

With ``gate: source`` the field shrinks the stream from its start; with ``gate: centred`` it starts as the identity, and
both raises and lowers dimensions. What its gates read can then be exchanged for controls without geometry (`features`).
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from modulant.backbones.stream import ResidualStream
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
    token_mean,
)
from modulators.field.arithmetic import (
    FieldWeights,
    expert_features,
    gate_and_validity,
    modulated_rows,
    uniformly_modulated_rows,
)
from modulators.field.experts import SimplexExpert, edges_of, n_features_of

_DEGENERATE = 1e-6  # a squared volume, in those of the regular simplex
_SATURATED = 0.05  # a gate's slope, in its largest
Features = Literal["simplex", "linear", "random", "constant"]


class FieldModulator(Modulator):
    r"""a ← a · Π_k [(1 − α_lk) + α_lk · gate_k · validity_k] on the active dimensions a (A of D); ``gate: source``.

    Per expert k: vertices = regular k-simplex in `expert_edim` dimensions + `deform_scale` · Linear(a); features =
    LayerNorm([squared edge lengths, squared volume]); gate_k = sigmoid(Linear(features)), A wide; validity_k =
    sigmoid(Linear(features)), one number. A gate is at most 1, so a modulated dimension only ever shrinks, by at
    least 1 − α per expert.

    ``gate: centred``: a ← a · Π_k [1 + α_lk · tanh(Linear(features))], with all weights of that Linear 0 at the start:
    the field is then the identity, bit for bit. A factor lies between 1 − α and 1 + α. There is no validity, and the
    deformation scale is learned, one number for all experts: 9,733 numbers at d_model 128 with six layers (9,752 of the
    source's gate). What its gates read is `features`, the same number of them for each expert:

    - ``simplex``: the shape, as above.
    - ``linear``: a fixed isometry of the same vertices in place of their shape, so a linear function of a, and then
      LayerNorm. The trained numbers are the same, 9,733.
    - ``random``: the same with Linear(a) and the scale frozen where they start; 1,972 numbers are trained.
    - ``constant``: ones; a gain for each layer's α and each dimension, whatever the token. 1,938 numbers.

    Args:
        stream: the backbone's sizes.
        expert_ks: one expert a number, the dimension of its simplex: edge, triangle, pentachoron.
        expert_edim: dimensions of the space that the simplices live in.
        initial_alpha: injection strength at the start, of every layer and expert; null: 0.01 (centred: 0.5).
        alpha_min: lower bound of alpha; null: 0.001 (centred: 0).
        alpha_max: upper bound of alpha; null: 0.35 (centred: 1).
        alpha_bound: ``smooth``, or ``clamp``, the source's, which loses its gradient at a bound. Smooth is α = α_min +
            (α_max − α_min) sigmoid(θ), clamp α = clamp(sigmoid(θ), α_min, α_max).
        null_space_fraction: share of the dimensions that is never touched, rounded down.
        null_space_position: ``tail``: the last dimensions; ``scattered``: drawn by null_space_seed.
        deform_scale: how far a unit of the linear map moves a vertex, in edge lengths; null: 0.05 (centred: 0.3). A
            centred gate learns it from there on.
        validity_gate: multiply the gate by the validity; false: no such head; null: true (centred: false). Without it
            the arithmetic is the source's; a centred gate has none.
        learnable_alpha: false keeps alpha at its initial value.
        null_space_seed: of the scattered null space.
        gate: ``source``, which only shrinks the stream, or ``centred``, which starts as the identity.
        features: what a centred gate reads: ``simplex``, or the controls ``linear``, ``random`` and ``constant``.

    Raises:
        ValueError: an argument out of its range, or one that contradicts the gate, by name.
    """

    scattered_dims: Tensor | None
    deform_scale: float | Tensor

    @checked
    def __init__(
        self,
        stream: ResidualStream,
        expert_ks: Sequence[PositiveInt] = (1, 2, 4),
        expert_edim: PositiveInt = 8,
        initial_alpha: OpenUnitInterval | None = None,
        alpha_min: HalfOpenUnitInterval | None = None,
        alpha_max: Annotated[float, Interval(exclusiveMinimum=0, maximum=1)] | None = None,
        alpha_bound: Literal["smooth", "clamp"] = "smooth",
        null_space_fraction: HalfOpenUnitInterval = 0.25,
        null_space_position: Literal["tail", "scattered"] = "tail",
        deform_scale: PositiveFloat | None = None,
        validity_gate: bool | None = None,
        learnable_alpha: bool = True,
        null_space_seed: Seed = 42,
        gate: Literal["source", "centred"] = "source",
        features: Features = "simplex",
    ) -> None:
        init_args = check_field(
            {
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
                "gate": gate,
                "features": features,
            }
        )
        self.centred = gate == "centred"
        if not self.centred:  # artefacts of the source's gate stay as older versions write and read them
            del init_args["gate"], init_args["features"]
        super().__init__(stream, init_args)
        self.alpha_min, self.alpha_max = init_args["alpha_min"], init_args["alpha_max"]
        self.smooth = alpha_bound == "smooth"
        self.ks, self.expert_edim, self.features = tuple(expert_ks), expert_edim, features
        self.validity_gate: bool = init_args["validity_gate"]
        self.n_active = stream.d_model - int(null_space_fraction * stream.d_model)
        self.register_buffer("scattered_dims", None, persistent=False)
        # Left None where the active dimensions are the first ones, which are read in place.
        if null_space_position == "scattered" and self.n_active < stream.d_model:
            self.scattered_dims = self._draw_dims(null_space_seed)

        self.linear = features in ("linear", "random")
        self.experts = nn.ModuleDict()
        if features != "constant":
            for k in expert_ks:
                expert = SimplexExpert(k, expert_edim, self.n_active, self.validity_gate, self.linear)
                self.experts[f"k{k}"] = expert
        self.gate_projs = nn.ModuleDict({f"k{k}": nn.Linear(n_features_of(k), self.n_active) for k in expert_ks})
        self.deform_scale = init_args["deform_scale"]
        if self.centred:
            for parameter in self.gate_projs.parameters():
                nn.init.zeros_(parameter)
            if features != "constant":
                # One dimension, as FSDP takes no scalar.
                scale = torch.full((1,), init_args["deform_scale"])
                self.deform_scale = nn.Parameter(scale, requires_grad=features != "random")
            if features == "random":
                for _, expert in self._experts():
                    expert.to_deform.requires_grad_(False)
        self.null_space_seed = null_space_seed
        self.register_load_state_dict_post_hook(_restore_constants)  # type: ignore[no-untyped-call]
        low, high, start = self.alpha_min, self.alpha_max, init_args["initial_alpha"]
        free = (start - low) / (high - low) if self.smooth else start
        self._register_alpha_logits(torch.full((stream.n_layers, len(self.ks)), logit(free)), learnable_alpha)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FieldModulator":
        constants = {name: buffer for name, buffer in self.named_buffers() if buffer.is_meta}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if constants and not self.alpha_logits.is_meta:  # to_empty: these have no values either
            _restore_constants(self, lost=True)
        return self

    def _context(self, token_ids: Tensor | None) -> FieldWeights:
        """All experts' weights side by side."""
        experts, gates = [expert for _, expert in self._experts()], self._gate_projs()
        length = max(map(n_features_of, self.ks)) + 1
        side_by_side = torch.stack([_padded(linear.weight, linear.bias[:, None], length).t() for linear in gates])
        if self.centred:
            side_by_side = 2 * side_by_side  # tanh by a sigmoid, see `modulators.field.arithmetic`
        if not experts:
            none = side_by_side.new_empty(0, self.n_active)
            return FieldWeights(none, none[:, 0], none, none, None, side_by_side)
        one = side_by_side.new_ones(1)
        norm = torch.stack([_padded(expert.norm.weight, 0 * one, length) for expert in experts])
        shift = torch.stack([_padded(expert.norm.bias, one, length) for expert in experts])
        validity = None
        if self.validity_gate:
            heads = [cast(nn.Linear, expert.validity_proj) for expert in experts]
            validity = torch.stack([_padded(head.weight[0], head.bias, length) for head in heads])
        return FieldWeights(*self._affine(experts), norm, shift, validity, side_by_side)

    def _affine(self, experts: list[SimplexExpert]) -> tuple[Tensor, Tensor]:
        """The map from the active dimensions to all edges, or to linear features of the vertices, and its offsets."""
        parts: list[tuple[Tensor, Tensor, Tensor]] = [
            (expert.template.flatten(), expert.to_deform.weight, expert.to_deform.bias) for expert in experts
        ]
        if not self.linear:
            parts = [
                (edges_of(template, expert.k), edges_of(weight, expert.k), edges_of(bias, expert.k))
                for (template, weight, bias), expert in zip(parts, experts, strict=True)
            ]
        template, weight, bias = (torch.cat(rows) for rows in zip(*parts, strict=True))
        if not isinstance(self.deform_scale, Tensor):
            return self.deform_scale * weight, torch.add(template, bias, alpha=self.deform_scale)
        weight, offsets = self.deform_scale * weight, torch.addcmul(template, bias, self.deform_scale)
        if not self.linear:
            return weight, offsets
        readout = torch.block_diag(*(cast(Tensor, expert.readout) for expert in experts))
        return readout @ weight, readout @ offsets

    def _modulate(self, residual: Tensor, alpha: Tensor, layer: int, context: FieldWeights) -> Tensor:
        dtype = torch.promote_types(residual.dtype, torch.float32)
        weights = _cast(context, dtype)
        alpha = alpha.to(dtype)
        if self.scattered_dims is None:
            rows = residual.reshape(-1, self.stream.d_model)
            return self._modulated_rows(rows, alpha, weights).view(residual.shape)
        active = residual.index_select(-1, self.scattered_dims)
        rows = self._modulated_rows(active.view(-1, self.n_active), alpha, weights)
        return residual.index_copy(-1, self.scattered_dims, rows.view(active.shape))

    def _modulated_rows(self, rows: Tensor, alpha: Tensor, weights: FieldWeights) -> Tensor:
        if not self.experts:
            return uniformly_modulated_rows(rows, alpha, weights.gates)
        return modulated_rows(rows, alpha, weights, self.ks, self.centred, self.linear)

    @property
    def alphas(self) -> Float[Tensor, "layers experts"]:
        free = at_least_fp32(self.alpha_logits).sigmoid()
        if self.smooth:
            return self.alpha_min + (self.alpha_max - self.alpha_min) * free
        return free.clamp(self.alpha_min, self.alpha_max)

    @property
    def expert_names(self) -> tuple[str, ...]:
        return tuple(self.gate_projs)

    @property
    def active_dims(self) -> Tensor:
        if self.scattered_dims is None:
            return torch.arange(self.n_active, device=self.alpha_logits.device)
        return self.scattered_dims

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Experts learn at a tenth of the rate, alphas at half, gates at the whole one; of a centred gate all of them.

        The deformation's scale gets no weight decay.
        """
        experts, alphas = (lr, lr) if self.centred else (0.1 * lr, 0.5 * lr)
        scale = [self.deform_scale] if isinstance(self.deform_scale, Tensor) else []
        return [
            *parameter_group("experts", list(self.experts.parameters()), experts, weight_decay),
            *parameter_group("scale", scale, lr, 0.0),
            *parameter_group("gates", list(self.gate_projs.parameters()), lr, weight_decay),
            *parameter_group("alphas", [self.alpha_logits], alphas, 0.0),
        ]

    @torch.no_grad()
    def health_report(self) -> dict[str, float]:
        r"""Figures of the weights alone: α, and for each expert (``field/k4/…``):

        - ``deformation``: ‖s W‖, the Frobenius norm of the map from the active dimensions to the vertices, with the
          deformation scale s (``field/scale``); in edge lengths per unit of the stream.
        - ``gate_weight``: ‖G‖, the Frobenius norm of the map from the features to the gate.
        - ``gate_saturated``: share of the gate's biases at which the gate's slope is below a twentieth of its largest:
          beyond ±4.36, of a centred gate (tanh) ±2.18.
        """
        figures = {}
        if self.experts:
            figures["scale"] = torch.as_tensor(self.deform_scale, dtype=torch.float64).sum()
        for name, expert in self._experts():
            figures[f"{name}/deformation"] = figures["scale"] * expert.to_deform.weight.double().norm()
        for name, gate in zip(self.gate_projs, self._gate_projs(), strict=True):
            opened = (gate.bias.double() * (2 if self.centred else 1)).sigmoid()
            figures[f"{name}/gate_weight"] = gate.weight.double().norm()
            figures[f"{name}/gate_saturated"] = (4 * opened * (1 - opened) < _SATURATED).double().mean()
        return super().health_report() | {f"field/{name}": float(value) for name, value in figures.items()}

    @torch.no_grad()
    def observe(
        self,
        before: Float[Tensor, "batch tokens width"],
        after: Float[Tensor, "batch tokens width"],
        layer: int,
        context: FieldWeights | None = None,
        real: Bool[Tensor, "batch tokens"] | None = None,
    ) -> dict[str, Tensor]:
        """Figures of one layer: the push, and for each expert (``field/layer_00_k4/…``), over tokens:

        - ``gate``, ``gate_sd``: of the sigmoid, or of a centred gate's tanh, over dimensions too.
        - ``validity``, ``validity_sd``: of the source's gate where it has one.
        - ``deformation``: ‖s (W a + b)‖, how far the token moves all vertices together, in edge lengths.
        - ``volume``, ``volume_cv``: mean of the squared volume, in edge lengths^(2k), and its sd / mean.
        - ``degenerate``: share of tokens with a squared volume below 1e-6 of the regular simplex's, which is a volume
          below a thousandth; fp32 leaves no digits much below.

        Linear features have no volumes, constant ones a gate alone.
        """
        figures = super().observe(before, after, layer, context, real)
        stream = before if self.scattered_dims is None else before.index_select(-1, self.scattered_dims)
        active = at_least_fp32(stream[..., : self.n_active].reshape(-1, self.n_active))
        weights = _cast(self._context(None) if context is None else context, active.dtype)
        counted = None if real is None else real.flatten()
        for expert, found in self._readings(active, weights).items():
            for name, values in found.items():
                mean, sd = _mean_and_sd(values, counted)
                match name:
                    case "gate" | "validity":
                        found_here = {name: mean, f"{name}_sd": sd}
                    case "volume":
                        found_here = {name: mean, "volume_cv": sd / mean}
                    case _:
                        found_here = {name: mean}
                at = f"{self.short_name}/layer_{layer:02d}_{expert}"
                figures |= {f"{at}/{key}": value for key, value in found_here.items()}
        return figures

    def _readings(self, active: Tensor, weights: FieldWeights) -> dict[str, dict[str, Tensor]]:
        """By expert and name, what is measured at each of N tokens: (N,), or (N, active) for the gate."""
        if not self.experts:
            gates = 2 * weights.gates.sum(1).sigmoid() - 1
            return {name: {"gate": gate.expand_as(active)} for name, gate in zip(self.gate_projs, gates, strict=True)}
        shapes = expert_features(active, weights, self.ks, self.linear)
        found: dict[str, dict[str, Tensor]] = {}
        for e, (name, expert) in enumerate(self._experts()):
            gate, validity = gate_and_validity(shapes[e], weights, e)
            moved = F.linear(active, expert.to_deform.weight.to(active), expert.to_deform.bias.to(active))
            found[name] = {"gate": 2 * gate - 1 if self.centred else gate}
            if validity is not None:
                found[name]["validity"] = validity
            found[name]["deformation"] = self.deform_scale * moved.norm(dim=-1)
            if not self.linear:
                volume, regular = shapes[e][-1], (expert.k + 1) / (2**expert.k * math.factorial(expert.k) ** 2)
                found[name] |= {"volume": volume, "degenerate": (volume < _DEGENERATE * regular).to(volume)}
        return found

    def _experts(self) -> list[tuple[str, SimplexExpert]]:
        return [(name, cast(SimplexExpert, expert)) for name, expert in self.experts.items()]

    def _gate_projs(self) -> list[nn.Linear]:
        return [cast(nn.Linear, self.gate_projs[name]) for name in self.gate_projs]

    def _draw_dims(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(self.stream.d_model, generator=generator, device="cpu")
        return order[: self.n_active].sort().values.to(torch.get_default_device())


def _restore_constants(modulator: FieldModulator, *args: Any, lost: bool = False) -> None:
    """Make again what follows from the arguments, after a modulator built on meta has got its tensors.

    Args:
        modulator: the field.
        args: of the hook, not needed.
        lost: whether its constants hold no values, wherever they are.
    """
    if modulator.alpha_logits.is_meta:
        return
    for _, expert in modulator._experts():
        if lost or expert.template.is_meta:
            expert.restore()
    if modulator.scattered_dims is not None and (lost or modulator.scattered_dims.is_meta):
        with torch.device(modulator.alpha_logits.device):
            modulator.scattered_dims = modulator._draw_dims(modulator.null_space_seed)


def _mean_and_sd(values: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and population sd over the counted tokens, and over dimensions where there are any."""
    of_token = values if values.ndim == 1 else values.mean(-1)
    mean = token_mean(of_token, counted)
    squares = (values - mean).square()
    return mean, token_mean(squares if squares.ndim == 1 else squares.mean(-1), counted).sqrt()


def _padded(weight: Tensor, last: Tensor, length: int) -> Tensor:
    """(…, features) to (…, length): zeros, and `last` beside the feature that is always one."""
    return torch.cat([F.pad(weight, (0, length - 1 - weight.shape[-1])), last], dim=-1)


def _cast(weights: FieldWeights, dtype: torch.dtype) -> FieldWeights:
    """All weights in one dtype. No method of the tuple's: jaxtyping's wrapper around one cannot be traced."""
    return FieldWeights(*(None if weight is None else weight.to(dtype) for weight in weights))  # type: ignore[arg-type]
