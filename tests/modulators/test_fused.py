"""A fused LERP computes what the unfused one does; what is saved and trained is the unfused one."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modulant.backbones.t5 import encode, load_backbone
from modulators import FieldModulator, LerpModulator, ResidualStream, attach, load_modulated, save_modulator
from modulators.fused import FusedLerp

STREAM = ResidualStream(d_model=32, n_layers=3, vocab_size=97)
# Both are fp32 sums of 8 products, in another order: some 8 ulp of values near 1.
TOLERANCE = 2e-6


@pytest.fixture(params=[True, False])
def lerp(request: pytest.FixtureRequest) -> LerpModulator:
    modulator = LerpModulator(STREAM, n_geometric_dims=8, initial_alpha=0.2, per_layer_alpha=request.param)
    with torch.no_grad():
        modulator.proj.weight.mul_(100)  # of the size of the stream
        modulator.alpha_logits.add_(torch.linspace(-1, 1, len(modulator.alpha_logits))[:, None])
    return modulator.eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_same_output(lerp: LerpModulator, dtype: torch.dtype) -> None:
    residual, ids = torch.randn(2, 70, 32).to(dtype), torch.randint(0, 97, (2, 70))
    fused = lerp.fuse()
    for layer in range(3):
        for scale in (1.0, 0.5, 0.0):
            ours, theirs = (m(residual, layer, ids, scale) for m in (fused, lerp))
            assert ours.dtype == dtype
            tolerance = 2**-6 if dtype == torch.bfloat16 else TOLERANCE
            torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)
    assert torch.equal(fused(residual, 1, ids, 0.0), residual)
    assert torch.equal(fused.alphas, lerp.alphas)
    with pytest.raises(ValueError, match="token_ids hold 97; the vocabulary has 0 … 96"):
        fused(residual, 0, ids + (97 - ids))


def test_it_is_a_snapshot_that_saves_as_the_unfused_one_and_never_trains(lerp: LerpModulator) -> None:
    residual, ids = torch.randn(1, 4, 32), torch.randint(0, 97, (1, 4))
    fused = lerp.fuse()
    before = fused(residual, 0, ids)
    with torch.no_grad():
        lerp.proj.weight.zero_()
    assert torch.equal(fused(residual, 0, ids), before)
    assert torch.equal(copy.deepcopy(fused)(residual, 0, ids), before)
    assert fused.state_dict().keys() == {"geometric_embed.weight", "proj.weight", "alpha_logits"}
    assert list(fused.parameters()) == []
    assert fused.fuse() is fused
    assert fused.eval() is fused
    for wrong in (lambda: fused.train(), lambda: fused.parameter_groups(1e-3, 0.0)):
        with pytest.raises(ValueError, match=r"^a fused LerpModulator cannot be trained: its table is not a parameter"):
            wrong()
    with pytest.raises(ValueError, match="loads no state dict"):
        fused.load_state_dict(lerp.state_dict())


def test_a_field_cannot_be_fused() -> None:
    with pytest.raises(ValueError, match=r"^a FieldModulator cannot be fused: .* only a LerpModulator can$"):
        FieldModulator(STREAM).fuse()


def test_a_handle_fuses_and_saves(backbone: str, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    model = load_backbone(backbone)
    modulator = LerpModulator(ResidualStream(32, 3, model.config.vocab_size), n_geometric_dims=8, initial_alpha=0.3)
    handle = attach(model, modulator)
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    plain = encode(model, ids, mask)
    handle.fuse()
    handle.fuse()
    assert isinstance(handle.modulator, FusedLerp)
    fused = encode(model, ids, mask)
    assert handle.summary().fused
    # The final layer norm divides by a root mean square near one.
    torch.testing.assert_close(fused, plain, rtol=0, atol=1e-5)
    with handle.scaled(0.5):
        assert not torch.allclose(encode(model, ids, mask), fused, atol=1e-3)
    save_modulator(handle.modulator, tmp_path, backbone, handle.layers)
    loaded, _ = load_modulated(tmp_path)
    assert torch.equal(encode(loaded, ids, mask), plain)
    handle.unfuse()
    handle.unfuse()
    assert handle.modulator is modulator
    assert torch.equal(encode(model, ids, mask), plain)
