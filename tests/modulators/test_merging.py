"""Merging: exact where it says so, measured where it is not, refused where it means nothing."""

from typing import Any

import pytest
import torch
from torch import Tensor

from modulators import FieldModulator, LerpModulator, Modulator, ResidualStream, merge

STREAM = ResidualStream(d_model=32, n_layers=3, vocab_size=97)


def lerp(seed: int, dims: int = 8, alpha: float = 0.2, spread: float = 0.0, **how: Any) -> LerpModulator:
    modulator = LerpModulator(STREAM, dims, initial_alpha=alpha, seed=seed, **how)
    with torch.no_grad():
        modulator.proj.weight.mul_(100)
        logits = modulator.alpha_logits
        logits.add_(spread * torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed)))
    return modulator.eval()


def field(seed: int, **how: Any) -> FieldModulator:
    torch.manual_seed(seed)
    return FieldModulator(STREAM, initial_alpha=0.2, **how).eval()


def nudged(modulator: Modulator, by: float, seed: int) -> Modulator:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in modulator.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return modulator


def deviation(parts: list[Modulator], weights: list[float]) -> float:
    """Largest difference of the merged one's step from the mean of the parts' steps, beside the step's size."""
    residual = torch.randn(2, 70, 32, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(0, 97, (2, 70), generator=torch.Generator().manual_seed(1))
    merged, worst = merge(parts, weights), 0.0
    for layer in range(3):
        steps: list[Tensor] = [part(residual, layer, ids) for part in parts]
        mean = sum(w * step for w, step in zip(weights, steps, strict=True))
        error = (merged(residual, layer, ids) - mean).abs().max() / (mean - residual).abs().max()
        worst = max(worst, error.item())
    return worst


@torch.no_grad()
@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.9, 0.1], [1.0, 0.0]])
def test_lerps_of_proportional_alphas_merge_exactly(weights: list[float]) -> None:
    assert deviation([lerp(1), lerp(2, dims=5, alpha=0.4)], weights) < 1e-6
    assert deviation([lerp(1, per_layer_alpha=False), lerp(2, alpha=0.05, learnable_alpha=False)], weights) < 1e-6


@torch.no_grad()
def test_lerps_whose_alphas_differ_by_layer_merge_nearly() -> None:
    parts = [lerp(1, spread=0.5), lerp(2, spread=0.5)]
    assert 1e-4 < deviation(parts, [0.5, 0.5]) < 0.3
    merged = merge(parts)
    mean = (parts[0].alphas + parts[1].alphas) / 2
    torch.testing.assert_close(merged.alphas, mean)  # the shrinking is exact all the same
    assert merged.init_args["n_geometric_dims"] == 16


@torch.no_grad()
def test_merging_one_with_itself_gives_itself() -> None:
    one = lerp(1, spread=0.5)
    assert deviation([one, one, one], [0.2, 0.3, 0.5]) < 1e-6
    same = nudged(field(3), 0.1, 4)
    merged = merge([same, same], [0.3, 0.7])
    assert all(torch.equal(merged.state_dict()[name], value) for name, value in same.state_dict().items())
    assert merged is not same


@torch.no_grad()
def test_fields_of_one_start_merge_nearly_and_strangers_do_not() -> None:
    """Two trainings from one start, played by small steps from it, beside two starts."""
    near = deviation([nudged(field(3), 0.02, 4), nudged(field(3), 0.02, 5)], [0.5, 0.5])
    far = deviation([nudged(field(3), 0.5, 4), nudged(field(6), 0.5, 5)], [0.5, 0.5])
    assert near < 0.01
    assert far > 5 * near


@pytest.mark.parametrize(
    ("parts", "weights", "message"),
    [
        ([], None, "merge: no modulator"),
        ([lerp(1), field(1)], None, "a LerpModulator and a FieldModulator cannot be merged"),
        ([lerp(1), LerpModulator(ResidualStream(32, 4, 97))], None, "both must be of the same sizes"),
        ([field(1), field(1, null_space_position="scattered")], None, "null_space_position is 'tail' and 'scattered'"),
        ([field(1), field(1, alpha_max=0.5)], None, "alpha_max is 0.35 and 0.5"),
        ([lerp(1), lerp(2)], [1.0], "1 weight for 2 modulators"),
        ([lerp(1), lerp(2)], [0.5, 0.6], "they must not be negative, and must sum to 1"),
        ([lerp(1), lerp(2)], [1.5, -0.5], "they must not be negative, and must sum to 1"),
        ([lerp(1), lerp(2)], [float("nan"), 1.0], "they must not be negative, and must sum to 1"),
    ],
)
def test_refused(parts: list[Modulator], weights: list[float] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        merge(parts, weights)
    assert "\n" not in str(error.value)


def test_fused_parts_are_those_they_are_made_from() -> None:
    parts = [LerpModulator(STREAM, n_geometric_dims=4, seed=seed) for seed in (1, 2)]
    expected = merge(parts).state_dict()
    for given in ([part.fuse() for part in parts], [parts[0], parts[1].fuse()]):
        found = merge(given).state_dict()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
