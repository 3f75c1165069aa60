"""What the checks of `modulators.contract.suite` share: small backbones, inputs, and how a broken promise is told."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration, UMT5Config, UMT5ForConditionalGeneration

from modulant.backbones.stream import ResidualStream
from modulators.base import Modulator

Build = Callable[[ResidualStream], Modulator]

SIZES: dict[str, int] = {
    "vocab_size": 97,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 3,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
STREAM = ResidualStream(SIZES["d_model"], SIZES["num_layers"], SIZES["vocab_size"])
BACKBONES: dict[str, Callable[[], Any]] = {
    "t5_v1_0": lambda: T5ForConditionalGeneration(T5Config(**SIZES, feed_forward_proj="relu")),
    "t5_v1_1": lambda: T5ForConditionalGeneration(
        T5Config(**SIZES, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    ),
    "umt5": lambda: UMT5ForConditionalGeneration(UMT5Config(**SIZES)),
}
LABELS = torch.tensor([[5, 6, 7, 1], [8, 9, 1, -100]])


class ContractError(AssertionError):
    """A promise that is not kept; the message says which and how."""


def backbone(name: str) -> Any:
    """A small T5 with seeded random weights, frozen."""
    torch.manual_seed(0)
    return BACKBONES[name]().requires_grad_(False).eval()


def batch() -> dict[str, Tensor]:
    """72 tokens (the bucketed position bias shows its scheme only on long input), the second row padded from 60 on."""
    input_ids = torch.randint(2, SIZES["vocab_size"], (2, 72), generator=torch.Generator().manual_seed(2))
    attention_mask = torch.ones_like(input_ids)
    input_ids[1, 60:], attention_mask[1, 60:] = 0, 0
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def residual() -> Tensor:
    return torch.randn(2, 70, SIZES["d_model"], generator=torch.Generator().manual_seed(3))


def token_ids() -> Tensor:
    return torch.randint(0, SIZES["vocab_size"], (2, 70), generator=torch.Generator().manual_seed(4))


def nudge(modulator: Modulator) -> None:
    """Away from the initial state, buffers included, so that loading has something to restore."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in modulator.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))


def encode(model: Any, given: Mapping[str, Tensor]) -> Tensor:
    out: Tensor = model.encoder(**given).last_hidden_state
    return out


def require(kept: bool, otherwise: str) -> None:
    if not kept:
        raise ContractError(otherwise)


def same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def close(a: Tensor, b: Tensor, what: str, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    apart = (a - b).detach().abs()
    far = bool((apart > atol + rtol * b.detach().abs()).any()) or not bool(apart.isfinite().all())
    require(not far, f"{what}: differs by up to {float(apart.max()) if apart.numel() else 0:.2g}")
