"""What every modulator is: a small trained map on the residual stream of a frozen encoder, applied before each block.

`Modulator` owns what does not depend on the formula: checking its input, keeping the arithmetic in fp32 however low the
stream's precision is, the alpha logits, and scaling alpha when it is asked to. A subclass writes one formula
(`_modulate`) and says what its alphas are.
Nobody here knows a Transformer: `modulators.hooks` brings the two together.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modulant.backbones.stream import ResidualStream


class Prepared(NamedTuple):
    """Of one pass of the encoder: `alphas` (experts,) of each layer as they are used, and what else a formula needs."""

    alphas: tuple[Tensor, ...]
    context: Any


class Modulator(nn.Module, ABC):
    """Rewrites the stream (B, S, D) that encoder block `layer` is about to read.

    `init_args` holds the constructor's arguments but the stream, as primitives: with it, the stream and the state dict,
    a modulator can be built again.
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
        """The modulated stream, in the dtype of `residual`.

        Args:
            residual: (B, S, D), what block `layer` would have read.
            layer: index of the encoder block.
            token_ids: (B, S); only a modulator that looks tokens up needs them.
            alpha_scale: alphas are used times this; at 0 the stream comes back as it was, to the bit.
            prepared: what `prepare` returned for these tokens and this scale, which saves making it at each layer.

        Raises:
            ValueError: a stream of another width, a layer that the modulator has no alpha for, or token ids that are
                missing where needed, of another shape than the stream's, or outside the vocabulary.
        """
        if residual.shape[-1] != self.stream.d_model:
            raise ValueError(
                f"{type(self).__name__} was built for width {self.stream.d_model}, got {residual.shape[-1]}"
            )
        if not 0 <= layer < self.stream.n_layers:
            raise ValueError(f"layer {layer}: the modulator has {self.stream.n_layers}, {_span(self.stream.n_layers)}")
        # Autocast would run the small matrix products in bf16, whose 8 bits a determinant does not survive.
        with torch.autocast(device_type=residual.device.type, enabled=False):
            ready = self._ready(token_ids, alpha_scale) if prepared is None else prepared
            return self._modulate(residual, ready.alphas[layer], layer, ready.context)

    def prepare(self, token_ids: Int[Tensor, "..."] | None = None, alpha_scale: float = 1.0) -> Prepared:
        """What is the same at every layer of one pass of the encoder, computed once: `forward`'s last argument.

        Raises:
            ValueError: token ids that are missing where needed, or outside the vocabulary.
        """
        with torch.autocast(device_type=self.alphas.device.type, enabled=False):
            return self._ready(token_ids, alpha_scale)

    def _ready(self, token_ids: Tensor | None, alpha_scale: float) -> Prepared:
        alphas = self.alphas if alpha_scale == 1.0 else alpha_scale * self.alphas
        return Prepared(alphas.unbind(), self._context(token_ids))

    def _context(self, token_ids: Tensor | None) -> Any:
        """What `_modulate` needs of a pass beside the stream, computed once a pass; by default its token ids."""
        return token_ids

    @abstractmethod
    def _modulate(self, residual: Tensor, alpha: Tensor, layer: int, context: Any) -> Tensor:
        """The formula. Autocast is off; the result has the dtype of `residual`.

        `alpha` (experts,) is what to use, and is the identity at 0: this layer's row of `alphas`, scaled where a user
        asked for that. `context` is what `_context` returned: the token ids, where that is not overridden.
        """

    @property
    @abstractmethod
    def alphas(self) -> Float[Tensor, "layers experts"]:
        """Injection strengths as they are used now, differentiable: one row per layer, columns as `expert_names`."""

    @property
    @abstractmethod
    def expert_names(self) -> tuple[str, ...]:
        """Names of the columns of `alphas`."""

    @property
    @abstractmethod
    def active_dims(self) -> Int[Tensor, " active"]:
        """The dimensions of the stream that the modulator may change, ascending."""

    @abstractmethod
    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Optimizer groups, each with a ``name``; every trainable parameter is in exactly one, none is empty.

        Alphas get no weight decay: it would pull their logits to 0, and where alpha settles is what is being measured.
        """

    def fuse(self) -> "Modulator":
        """The same map for inference with what does not depend on the stream computed once.

        Raises:
            ValueError: all of it depends on the stream.
        """
        raise ValueError(
            f"a {type(self).__name__} cannot be fused: what it does follows from the stream, so nothing can be "
            "computed before; only a LerpModulator can"
        )

    def _register_alpha_logits(self, logits: Tensor, learnable: bool) -> None:
        if learnable:
            self.alpha_logits = nn.Parameter(logits)
        else:
            self.register_buffer("alpha_logits", logits)


def parameter_group(
    name: str, parameters: list[Tensor] | list[nn.Parameter], lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """One optimizer group in a list, or an empty list when none of `parameters` trains (an optimizer refuses those)."""
    trainable = [p for p in parameters if p.requires_grad]
    return [{"name": name, "params": trainable, "lr": lr, "weight_decay": weight_decay}] if trainable else []


def at_least_fp32(tensor: Tensor) -> Tensor:
    """fp32 for a 16-bit tensor; fp32 and fp64 stay as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def logit(probability: float) -> float:
    """ln(p / (1 − p)), in double precision so that an alpha starts where it was asked to."""
    return float(torch.tensor(probability, dtype=torch.float64).logit())


def _span(n: int) -> str:
    return f"0 … {n - 1}"
