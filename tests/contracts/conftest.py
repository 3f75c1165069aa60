"""Every modulator, in its variants, on every kind of backbone: tiny, random, frozen."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import (
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)

from modulators import FieldModulator, LerpModulator, Modulator, ResidualStream

# Alphas well away from their defaults: at 0.01 a broken modulator would hide in the tolerances.
MODULATORS: dict[str, Callable[[ResidualStream], Modulator]] = {
    "lerp": lambda s: LerpModulator(s, n_geometric_dims=8, initial_alpha=0.2),
    "lerp_shared": lambda s: LerpModulator(s, n_geometric_dims=8, initial_alpha=0.2, per_layer_alpha=False),
    "lerp_fixed": lambda s: LerpModulator(s, n_geometric_dims=8, initial_alpha=0.2, learnable_alpha=False),
    "field": lambda s: FieldModulator(s, initial_alpha=0.2),
    "field_scattered": lambda s: FieldModulator(s, initial_alpha=0.2, null_space_position="scattered"),
    "field_no_null": lambda s: FieldModulator(s, initial_alpha=0.2, null_space_fraction=0.0),
    "field_no_validity": lambda s: FieldModulator(s, initial_alpha=0.2, validity_gate=False),
    "field_clamp": lambda s: FieldModulator(s, initial_alpha=0.2, alpha_bound="clamp"),
    "field_fixed": lambda s: FieldModulator(s, initial_alpha=0.2, learnable_alpha=False),
    "field_tetrahedron": lambda s: FieldModulator(s, initial_alpha=0.2, expert_ks=(3, 5), expert_edim=6),
}

SIZES = {
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

BACKBONES: dict[str, Callable[[], PreTrainedModel]] = {
    "t5_v1_0": lambda: T5ForConditionalGeneration(T5Config(**SIZES, feed_forward_proj="relu")),
    "t5_v1_1": lambda: T5ForConditionalGeneration(
        T5Config(**SIZES, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    ),
    "umt5": lambda: UMT5ForConditionalGeneration(UMT5Config(**SIZES)),
}


@pytest.fixture
def stream() -> ResidualStream:
    return ResidualStream(SIZES["d_model"], SIZES["num_layers"], SIZES["vocab_size"])


@pytest.fixture(params=MODULATORS)
def build(request: pytest.FixtureRequest) -> Callable[[ResidualStream], Modulator]:
    return MODULATORS[request.param]


@pytest.fixture
def modulator(build: Callable[[ResidualStream], Modulator], stream: ResidualStream) -> Modulator:
    torch.manual_seed(1)
    return build(stream)


@pytest.fixture(params=BACKBONES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    return BACKBONES[request.param]().requires_grad_(False).eval()


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """72 tokens (the bucketed position bias shows its scheme only on long input), the second row padded from 60 on."""
    generator = torch.Generator().manual_seed(2)
    input_ids = torch.randint(2, SIZES["vocab_size"], (2, 72), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    input_ids[1, 60:], attention_mask[1, 60:] = 0, 0
    return {"input_ids": input_ids, "attention_mask": attention_mask}
