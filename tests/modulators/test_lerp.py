"""LERP against its formula in NumPy float64, its numbers, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from modulators import LerpModulator, ResidualStream

STREAM = ResidualStream(d_model=12, n_layers=3, vocab_size=20)


def test_t5_small_has_the_specified_number_of_parameters() -> None:
    modulator = LerpModulator(ResidualStream(512, 6, 32128))
    assert sum(p.numel() for p in modulator.parameters()) == 2_088_966
    assert set(modulator.state_dict()) == {"alpha_logits", "geometric_embed.weight", "proj.weight"}
    assert (modulator.alphas - 0.01).abs().max() < 1e-7


def test_it_is_the_formula() -> None:
    modulator = LerpModulator(STREAM, n_geometric_dims=4)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        modulator.alpha_logits.copy_(torch.tensor([[-2.0], [0.5], [3.0]]))
        modulator.proj.weight.mul_(100)
    h = torch.randn(2, 70, 12, generator=generator)
    ids = torch.randint(0, 20, (2, 70), generator=generator)
    W = modulator.proj.weight.detach().double().numpy()
    g = modulator.geometric_embed.weight.detach().double().numpy()
    for layer, theta in enumerate([-2.0, 0.5, 3.0]):
        alpha = 1 / (1 + np.exp(-theta))
        expected = (1 - alpha) * h.double().numpy() + alpha * np.einsum("dg,bsg->bsd", W, g[ids.numpy()])
        np.testing.assert_allclose(modulator(h, layer, ids).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_gradcheck() -> None:
    modulator = LerpModulator(STREAM, n_geometric_dims=3).double()
    h = torch.randn(1, 4, 12, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([[3, 7, 3, 19]])
    parameters = tuple(modulator.parameters())
    assert torch.autograd.gradcheck(lambda h, *_: modulator(h, 1, ids), (h, *parameters))


def test_random_rows_have_unit_norm_and_follow_the_seed_alone() -> None:
    state = torch.get_rng_state()
    first, again = LerpModulator(STREAM), LerpModulator(STREAM)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(first.geometric_embed.weight.norm(dim=-1), torch.ones(20), rtol=0, atol=1e-6)
    assert torch.equal(first.geometric_embed.weight, again.geometric_embed.weight)
    assert torch.equal(first.proj.weight, again.proj.weight)
    assert not torch.equal(first.proj.weight, LerpModulator(STREAM, seed=1).proj.weight)
    assert 0.008 < LerpModulator(ResidualStream(256, 1, 5)).proj.weight.std() < 0.012


def test_shared_and_fixed_alphas() -> None:
    shared = LerpModulator(STREAM, per_layer_alpha=False)
    assert shared.alpha_logits.numel() == 1
    assert shared.alphas.shape == (3, 1)
    fixed = LerpModulator(STREAM, learnable_alpha=False, initial_alpha=0.29154)
    assert "alpha_logits" not in dict(fixed.named_parameters())
    assert "alpha_logits" in fixed.state_dict()
    assert (fixed.alphas - 0.29154).abs().max() < 1e-6


def test_a_given_geometry_is_copied_from_tensor_or_file(tmp_path: Path) -> None:
    matrix = torch.arange(60.0).reshape(20, 3)
    np.save(tmp_path / "g.npy", matrix.double().numpy())
    save_file({"rows": matrix}, tmp_path / "g.safetensors")
    for geometry in (matrix, str(tmp_path / "g.npy"), str(tmp_path / "g.safetensors")):
        modulator = LerpModulator(STREAM, n_geometric_dims=3, geometry=geometry)
        assert torch.equal(modulator.geometric_embed.weight, matrix)
    with torch.no_grad():
        LerpModulator(STREAM, n_geometric_dims=3, geometry=matrix).geometric_embed.weight.zero_()
    assert matrix.sum() == 1770  # the caller's matrix is his own


def test_bad_geometry(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^geometry has shape \(20, 3\); vocabulary and n_geometric_dims ask for"):
        LerpModulator(STREAM, geometry=torch.zeros(20, 3))
    with pytest.raises(ValueError, match=r"^geometry holds values that are not finite$"):
        LerpModulator(STREAM, n_geometric_dims=3, geometry=torch.full((20, 3), torch.nan))
    (tmp_path / "broken.npy").write_bytes(b"no array")
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "two.safetensors")
    for name, message in (
        ("absent.npy", "cannot be read"),
        ("absent.safetensors", "cannot be read"),
        ("broken.npy", "cannot be read"),
        ("broken.safetensors", "cannot be read"),
        ("two.safetensors", "holds 2 tensors; it must hold one"),
        ("rows.csv", "must be a .npy or .safetensors file"),
    ):
        with pytest.raises(ValueError, match=rf"^geometry .*{name}.*{message}"):
            LerpModulator(STREAM, geometry=str(tmp_path / name))


@pytest.mark.parametrize(
    ("argument", "value"),
    [("n_geometric_dims", 0), ("n_geometric_dims", -1), ("initial_alpha", 0.0), ("initial_alpha", 1.0)],
)
def test_bad_arguments_are_named(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{argument} is {value}; it must"):
        LerpModulator(STREAM, **{argument: value})


def test_bad_token_ids() -> None:
    modulator = LerpModulator(STREAM)
    h = torch.zeros(2, 5, 12)
    with pytest.raises(ValueError, match=r"^LerpModulator needs token_ids: give the encoder input_ids"):
        modulator(h, 0)
    with pytest.raises(ValueError, match=r"^token_ids have shape \(2, 4\), the stream asks for \(2, 5\)$"):
        modulator(h, 0, torch.zeros(2, 4, dtype=torch.long))
    for wrong in (-1, 20):
        with pytest.raises(ValueError, match=rf"^token_ids hold {wrong}; the vocabulary has 0 … 19$"):
            modulator(h, 0, torch.full((2, 5), wrong))
