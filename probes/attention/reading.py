"""Reads a model's attention one layer at a time, in hooks on its attention modules, and its stream where a lens looks.

Attention that is computed in one fused call has no weights to look at. So the model's implementation is set to `eager`
while it is read, and set back whatever happens.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from modulant.backbones.families import Parts, parts_of
from modulant.backbones.families.base import at_path
from modulant.backbones.opening import Backbone, is_encoder_alone
from modulant.geometry import visible_keys

_EXACT = 1e-4  # how far a row's sum may be from 1
Receiver = Callable[[str, int, Tensor, Tensor], None]


@dataclass(frozen=True, eq=False)
class Attention:
    """One kind of attention of a model, in each of its layers.

    Attributes:
        name: "" of the stack that is measured; ``decoder`` and ``cross`` of a T5's decoder.
        modules: what returns the weights, by layer.
        causal: whether a query sees keys up to itself alone.
        windows: by layer, as of `visible_keys`.
    """

    name: str
    modules: Sequence[nn.Module]
    causal: bool
    windows: Sequence[int | None]

    @property
    def cross(self) -> bool:
        return self.name == "cross"

    def visible(self, layer: int, queries: int, keys: int) -> Tensor:
        """(queries, keys): what each query may see."""
        if self.cross:
            return torch.ones(queries, keys, dtype=torch.bool)
        return visible_keys(queries, self.causal, self.windows[layer])

    def visible_of_all(self, tokens: int) -> Tensor:
        """(tokens, tokens): what a query may see where no window is in its way."""
        return visible_keys(tokens, self.causal and not self.cross)


def attentions_of(backbone: Backbone) -> list[Attention]:
    """What attention a model has: its stack's; of a T5 that of the decoder, and between the two."""
    found = [_attention("", backbone.parts, "")]
    if (decoder := decoder_of(backbone)) is not None:
        found += [_attention("decoder", decoder, ""), _attention("cross", decoder, "cross_")]
    return found


def decoder_of(backbone: Backbone) -> Parts | None:
    """The decoder of a T5 that has one."""
    if "seq2seq" not in backbone.family.heads or is_encoder_alone(backbone.model.config):
        return None
    return parts_of(backbone.model, "decoder")


def _attention(name: str, parts: Parts, prefix: str) -> Attention:
    matrices = parts.family.matrices
    path = next(matrices[f"{prefix}{kind}"][0] for kind in ("q", "qkv") if f"{prefix}{kind}" in matrices)
    modules = [at_path(block, path.rpartition(".")[0]) for block in parts.blocks]
    return Attention(name, modules, parts.family.causal, _windows(cast(Any, parts.stack).config, len(modules)))


def _windows(config: Any, layers: int) -> list[int | None]:
    """Keys that a layer may see, where it does not see all."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * layers
    return [window if kind == "sliding_attention" else None for kind in kinds]


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Context in which a model computes attention step by step, with weights to look at."""
    before = model.config._attn_implementation
    if before == "eager":
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def reading(backbone: Backbone, attentions: Sequence[Attention], layers: Sequence[int], receive: Receiver) -> Any:
    """Context in which each forward pass hands over its attention, and as what it yields the stream of one stack.

    Args:
        backbone: the model.
        attentions: those that are read.
        layers: of each stack; a decoder with fewer has those that it has.
        receive: gets a name of `Attention`, a layer, weights (B, H, queries, keys) in fp64, whose rows sum to 1, and
            what is visible. NaN throughout where the weights are not finite.

    Yields:
        A dictionary that counts how often each layer of each attention was handed over.

    Raises:
        ValueError: a module returns no weights, or rows that do not sum to 1 over the keys that are visible.
    """
    seen: dict[tuple[str, int], int] = {}

    def hook(attention: Attention, layer: int) -> Callable[..., None]:
        def after(_module: nn.Module, _inputs: Any, output: Any) -> None:
            weights = _weights_in(output, backbone.name)
            seen[attention.name, layer] = seen.get((attention.name, layer), 0) + 1
            receive(attention.name, layer, *_checked(attention, layer, weights, backbone.name))

        return after

    with ExitStack() as stack:
        stack.enter_context(eager(backbone.model))
        for attention in attentions:
            for layer in layers:
                if layer < len(attention.modules):
                    module = attention.modules[layer]
                    if "output_attentions" in inspect.signature(module.forward).parameters:  # only if asked for
                        handle = module.register_forward_pre_hook(_ask, with_kwargs=True)
                        stack.callback(handle.remove)
                    stack.callback(module.register_forward_hook(hook(attention, layer)).remove)
        yield seen


def _ask(_module: nn.Module, inputs: Any, more: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return inputs, more | {"output_attentions": True}


def _weights_in(output: Any, name: str) -> Tensor:
    """The last tensor of four dimensions: a T5's bias of positions comes before it."""
    tensors = [t for t in output if isinstance(t, Tensor) and t.ndim == 4] if isinstance(output, tuple) else []
    if not tensors:
        raise ValueError(f"{name!r} returns no attention weights, even if computed step by step")
    return tensors[-1]


def _checked(attention: Attention, layer: int, weights: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Weights in fp64 with exact rows, and what is visible."""
    weights = weights.detach()
    weights = (weights.cpu() if weights.device.type == "mps" else weights).double()
    visible = attention.visible(layer, *weights.shape[-2:]).to(weights.device)
    if not bool(weights.isfinite().all()):
        return torch.full_like(weights, torch.nan), visible
    total = torch.where(visible, weights, 0.0).sum(-1, keepdim=True)
    if float((total - 1).abs().max()) > _EXACT:
        raise ValueError(
            f"rows of the {attention.name or 'self'} attention of {name!r} in layer {layer} do not sum to 1 over the "
            "keys that they may see; it looks elsewhere than its configuration says"
        )
    return torch.where(visible, weights, 0.0) / total, visible


def forward(backbone: Backbone, inputs: Tensor) -> Tensor:
    """One pass through all stacks, without a head. Returns the last hidden state of the one that makes next tokens.

    A T5's decoder reads the same text behind its start token, without the end.
    """
    hidden = backbone.encode(inputs.to(backbone.model.device))
    if (decoder := decoder_of(backbone)) is None:
        return hidden
    given = decoder_inputs(backbone, inputs).to(backbone.model.device)
    stack: Any = decoder.stack
    return cast(Tensor, stack(input_ids=given, encoder_hidden_states=hidden, use_cache=False).last_hidden_state)


def decoder_inputs(backbone: Backbone, inputs: Tensor) -> Tensor:
    """(B, T) tokens of a T5's decoder: the start token and the text without its end."""
    start = torch.full((len(inputs), 1), int(backbone.model.config.decoder_start_token_id or 0))
    return torch.cat([start, inputs[:, :-1].cpu()], dim=1)
