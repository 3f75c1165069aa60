"""Base class of all modulators: small trained maps on a frozen encoder's residual stream, applied before each block.

`Modulator` does what does not depend on the formula: it checks its input, keeps the arithmetic in fp32 for streams of
any precision, holds the alpha logits and scales alpha. A subclass implements one formula (`_modulate`) and its
`alphas`. Nothing here depends on a Transformer: `modulators.hooks` attaches a modulator to one.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd import forward_ad

from modulant.backbones.stream import ResidualStream
from modulant.reports.wording import counted


class Prepared(NamedTuple):
    """Inputs of all layers of one encoder pass: scaled `alphas` (experts,) per layer, and the formula's context."""

    alphas: tuple[Tensor, ...]
    context: Any


class Modulator(nn.Module, ABC):
    """Rewrites the stream (B, S, D) that encoder block `layer` is about to read.

    `init_args` holds the constructor's arguments except the stream, as primitives: with it, the stream and the state
    dict, a modulator can be rebuilt.
    """

    stream: ResidualStream
    alpha_logits: Tensor
    init_args: dict[str, Any]

    def __init__(self, stream: ResidualStream, init_args: dict[str, Any]) -> None:
        super().__init__()
        self.stream = stream
        self.init_args = init_args

    def forward(
        self,
        residual: Float[Tensor, "batch tokens width"],
        layer: int,
        token_ids: Int[Tensor, "..."] | None = None,
        alpha_scale: float = 1.0,
        prepared: Prepared | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Return the modulated stream, in the dtype of `residual`.

        Args:
            residual: (B, S, D), the stream that block `layer` would have read.
            layer: index of the encoder block.
            token_ids: (B, S); needed only by modulators that look tokens up.
            alpha_scale: factor on every alpha; at 0 the stream is returned unchanged, bit for bit.
            prepared: result of `prepare` for these tokens and this scale; saves computing it at each layer.

        Raises:
            ValueError: a stream of another width, a layer without an alpha, or token ids that are missing where needed,
                of another shape than the stream's, or outside the vocabulary.
        """
        if residual.shape[-1] != self.stream.d_model:
            raise ValueError(
                f"{type(self).__name__} was built for width {self.stream.d_model}, got {residual.shape[-1]}"
            )
        if not 0 <= layer < self.stream.n_layers:
            n = self.stream.n_layers
            raise ValueError(f"layer is {layer}; the modulator has {counted(n, 'layer')}, it must be 0 … {n - 1}")
        # Autocast would run the small matrix products in bf16; its 8 significant bits are too few for a determinant.
        with torch.autocast(device_type=residual.device.type, enabled=False):
            if prepared is None:
                prepared = self._prepare(token_ids, alpha_scale)
            return self._modulate(residual, prepared.alphas[layer], layer, prepared.context)

    def prepare(self, token_ids: Int[Tensor, "..."] | None = None, alpha_scale: float = 1.0) -> Prepared:
        """Compute once what is the same at every layer of an encoder pass: `forward`'s argument `prepared`.

        Raises:
            ValueError: token ids that are missing where needed, or outside the vocabulary.
        """
        with torch.autocast(device_type=self.alphas.device.type, enabled=False):
            return self._prepare(token_ids, alpha_scale)

    def _prepare(self, token_ids: Tensor | None, alpha_scale: float) -> Prepared:
        alphas = self.alphas if alpha_scale == 1.0 else alpha_scale * self.alphas
        return Prepared(alphas.unbind(), self._context(token_ids))

    def _context(self, token_ids: Tensor | None) -> Any:
        """What `_modulate` needs besides the stream, computed once per pass; by default the token ids."""
        return token_ids

    @abstractmethod
    def _modulate(self, residual: Tensor, alpha: Tensor, layer: int, context: Any) -> Tensor:
        """Apply the formula; the result has the dtype of `residual`. Autocast is off.

        `alpha` (experts,) is this layer's row of `alphas` times the scale; at 0 the formula must be the identity.
        `context` is what `_context` returned: the token ids, unless overridden.
        """

    @property
    @abstractmethod
    def alphas(self) -> Float[Tensor, "layers experts"]:
        """Current injection strengths, differentiable: one row per layer, columns as `expert_names`."""

    @property
    @abstractmethod
    def expert_names(self) -> tuple[str, ...]:
        """Names of the columns of `alphas`."""

    @property
    @abstractmethod
    def active_dims(self) -> Int[Tensor, " active"]:
        """Dimensions of the stream that the modulator may change, ascending."""

    @abstractmethod
    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Return optimizer groups, each with a ``name``; every trainable parameter is in exactly one, none is empty.

        Alphas get no weight decay: it would pull their logits to 0, and where alpha converges is what is measured.
        """

    def fuse(self) -> "Modulator":
        """Return the same map for inference, with everything independent of the stream precomputed.

        Raises:
            ValueError: nothing can be precomputed, since all of it depends on the stream.
        """
        raise ValueError(
            f"a {type(self).__name__} cannot be fused: all it computes depends on the stream, so nothing can be "
            "precomputed; only a LerpModulator can"
        )

    @property
    def short_name(self) -> str:
        """Prefix of its figures: ``field`` of a FieldModulator."""
        return type(self).__name__.removesuffix("Modulator").lower()

    @torch.no_grad()
    def health_report(self) -> dict[str, float]:
        """Figures of the weights alone, without inference: α by layer and expert, and what a subclass adds."""
        several = len(self.expert_names) > 1
        return {
            f"alpha/layer_{layer:02d}{f'_{expert}' * several}": alpha
            for layer, row in enumerate(self.alphas.double().tolist())
            for expert, alpha in zip(self.expert_names, row, strict=True)
        }

    @torch.no_grad()
    def observe(
        self,
        before: Float[Tensor, "batch tokens width"],
        after: Float[Tensor, "batch tokens width"],
        layer: int,
        context: Any = None,
        real: Bool[Tensor, "batch tokens"] | None = None,
    ) -> dict[str, Tensor]:
        r"""Figures of one layer in one pass, by key, as scalars on the stream's device: means over tokens.

        ``<short name>/layer_00/push`` is the relative push ‖h′ − h‖ / ‖h‖; of LERP that is ‖α (W g − h)‖ / ‖h‖. A
        subclass may add its own figures: ``…/layer_00/name`` of a layer, ``…/layer_00_k4/name`` of a layer and expert.

        Args:
            before: the stream h that the modulator got.
            after: the stream h′ that it returned.
            layer: index of the encoder block.
            context: what `_context` returned in this pass; None: unknown.
            real: false at padding, which does not count; None: all tokens count.
        """
        return {f"{self.short_name}/layer_{layer:02d}/push": token_mean(relative_push(before, after), real)}

    def _register_alpha_logits(self, logits: Tensor, learnable: bool) -> None:
        if learnable:
            self.alpha_logits = nn.Parameter(logits)
        else:
            self.register_buffer("alpha_logits", logits)


def parameter_group(
    name: str, parameters: list[Tensor] | list[nn.Parameter], lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Return one optimizer group in a list, or an empty list if none of `parameters` is trainable.

    Optimizers reject empty groups.
    """
    trainable = [p for p in parameters if p.requires_grad]
    return [{"name": name, "params": trainable, "lr": lr, "weight_decay": weight_decay}] if trainable else []


def relative_push(
    before: Float[Tensor, "*tokens width"], after: Float[Tensor, "*tokens width"]
) -> Float[Tensor, "*tokens"]:
    """‖after − before‖ / ‖before‖ of each token, in fp32 at least; 0 where nothing moved, a vector of zeros included.

    >>> relative_push(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[3.0, 3.0], [0.0, 0.0]]))
    tensor([0.2000, 0.0000])
    """
    before, after = at_least_fp32(before), at_least_fp32(after)
    return (after - before).norm(dim=-1) / before.norm(dim=-1).clamp_min(torch.finfo(before.dtype).tiny)


def token_mean(values: Float[Tensor, "*tokens"], real: Bool[Tensor, "*tokens"] | None) -> Float[Tensor, ""]:
    """Mean over the tokens where `real` holds, or over all if it is None; NaN without any."""
    return values.mean() if real is None else torch.where(real, values, 0).sum() / real.sum()


def plain_autograd() -> bool:
    """Whether hand-written gradients must give way to autograd.

    torch.compile, torch.func and forward-mode derivatives trace or transform the plain formula.
    """
    return bool(
        torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    )


def at_least_fp32(tensor: Tensor) -> Tensor:
    """Cast a 16-bit tensor to fp32; fp32 and fp64 are returned unchanged."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def logit(probability: float) -> float:
    """ln(p / (1 − p)), in double precision so that alpha starts exactly at the requested value."""
    return float(torch.tensor(probability, dtype=torch.float64, device="cpu").logit())
