"""Shared by the checks of `modulators.contract.suite`: small backbones, inputs, assertions."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration, UMT5Config, UMT5ForConditionalGeneration

from modulant.backbones.families import parts_of
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
    """A failed check; the message says why."""


def backbone(name: str) -> Any:
    """Build a small frozen T5 with seeded random weights."""
    torch.manual_seed(0)
    return BACKBONES[name]().requires_grad_(False).eval()


def batch() -> dict[str, Tensor]:
    """Two rows of 72 tokens, the second padded from 60 on; long, so that position bias buckets merge distances."""
    input_ids = torch.randint(2, SIZES["vocab_size"], (2, 72), generator=torch.Generator().manual_seed(2))
    attention_mask = torch.ones_like(input_ids)
    input_ids[1, 60:], attention_mask[1, 60:] = 0, 0
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def residual() -> Tensor:
    """A seeded random stream, (2, 70, D)."""
    return torch.randn(2, 70, SIZES["d_model"], generator=torch.Generator().manual_seed(3))


def token_ids() -> Tensor:
    """Seeded random token ids for `residual`, (2, 70)."""
    return torch.randint(0, SIZES["vocab_size"], (2, 70), generator=torch.Generator().manual_seed(4))


def nudge(modulator: Modulator) -> None:
    """Perturb all parameters and buffers, so that loading has something to restore."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in modulator.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))


def moved(build: Build) -> Build:
    """The same modulators, those that start as the identity `nudge`d: the checks need an effect to look at."""

    def build_moved(stream: ResidualStream) -> Modulator:
        modulator, ones = build(stream), torch.ones(1, 1, stream.d_model)
        if same(modulator(ones, 0, torch.zeros(1, 1, dtype=torch.long)), ones):
            nudge(modulator)
        return modulator

    return build_moved


def encode(model: Any, given: Mapping[str, Tensor]) -> Tensor:
    """The last hidden state of the model's stack, (B, S, D); of a T5 its encoder's."""
    out: Tensor = parts_of(model).stack(**given).last_hidden_state
    return out


def loss_of(model: Any) -> Tensor:
    """A loss that depends on every hidden state: a T5's own, of others the output weighted at random."""
    if model.config.is_encoder_decoder:
        loss: Tensor = model(**batch(), labels=LABELS).loss
        return loss
    out = encode(model, batch())
    return (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(6))).mean()


def require(holds: bool, reason: str) -> None:
    """Raise `ContractError` with `reason` unless the condition holds."""
    if not holds:
        raise ContractError(reason)


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same dtype, shape and values."""
    return a.dtype == b.dtype and torch.equal(a, b)


def close(a: Tensor, b: Tensor, what: str, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """Require |a − b| ≤ atol + rtol |b| for every element, all finite."""
    apart = (a - b).detach().abs()
    far = bool((apart > atol + rtol * b.detach().abs()).any()) or not bool(apart.isfinite().all())
    require(not far, f"{what}: differs by up to {float(apart.max()) if apart.numel() else 0:.2g}")
