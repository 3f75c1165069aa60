"""Every modulator that is shipped, in its variants."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from modulators import FieldModulator, LerpModulator, Modulator, ResidualStream
from modulators.contract.cases import BACKBONES, STREAM, moved
from modulators.contract.cases import backbone as small
from modulators.contract.cases import batch as two_sentences


def centred(stream: ResidualStream, **how: Any) -> Modulator:
    return FieldModulator(stream, initial_alpha=0.2, gate="centred", **how)


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
    "centred": lambda s: centred(s),
    "centred_scattered": lambda s: centred(s, null_space_position="scattered"),
    "centred_fixed": lambda s: centred(s, learnable_alpha=False),
    "centred_tetrahedron": lambda s: centred(s, expert_ks=(3, 5), expert_edim=6),
    "centred_linear": lambda s: centred(s, features="linear"),
    "centred_random": lambda s: centred(s, features="random"),
    "centred_constant": lambda s: centred(s, features="constant"),
}
# What differs in these differs once attached.
ATTACHED = (
    "lerp",
    "lerp_fixed",
    "field",
    "field_scattered",
    "field_no_null",
    "field_no_validity",
    "centred",
    "centred_linear",
    "centred_random",
    "centred_constant",
)


@pytest.fixture(params=MODULATORS)
def build(request: pytest.FixtureRequest) -> Callable[[ResidualStream], Modulator]:
    return moved(MODULATORS[request.param])


@pytest.fixture
def modulator(build: Callable[[ResidualStream], Modulator]) -> Modulator:
    torch.manual_seed(1)
    return build(STREAM)


@pytest.fixture(params=BACKBONES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return small(request.param)


@pytest.fixture
def batch() -> dict[str, Tensor]:
    return two_sentences()
