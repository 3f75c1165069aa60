"""What holds for every modulator by itself, with no backbone."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from modulators import Modulator, ResidualStream


@pytest.fixture
def residual() -> Tensor:
    return torch.randn(2, 70, 32, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def token_ids() -> Tensor:
    return torch.randint(0, 97, (2, 70), generator=torch.Generator().manual_seed(4))


def nudge(modulator: Modulator) -> None:
    """Away from the initial state, buffers included, so that loading has something to restore."""
    with torch.no_grad():
        for tensor in modulator.state_dict().values():
            tensor.add_(0.1 * torch.randn_like(tensor))


def test_save_and_load_gives_the_same_output(
    build: Callable[[ResidualStream], Modulator],
    stream: ResidualStream,
    modulator: Modulator,
    residual: Tensor,
    token_ids: Tensor,
    tmp_path: Path,
) -> None:
    nudge(modulator)
    save_file(modulator.state_dict(), tmp_path / "modulator.safetensors")
    loaded = build(stream)
    assert not torch.equal(loaded(residual, 1, token_ids), modulator(residual, 1, token_ids))
    loaded.load_state_dict(load_file(tmp_path / "modulator.safetensors"))
    for layer in range(stream.n_layers):
        assert torch.equal(loaded(residual, layer, token_ids), modulator(residual, layer, token_ids))


def test_init_args_and_state_dict_build_it_again(
    stream: ResidualStream, modulator: Modulator, residual: Tensor, token_ids: Tensor
) -> None:
    nudge(modulator)
    again = type(modulator)(stream, **modulator.init_args)
    again.load_state_dict(modulator.state_dict())
    assert torch.equal(again(residual, 2, token_ids), modulator(residual, 2, token_ids))
    assert all(isinstance(v, bool | int | float | str | list | None) for v in modulator.init_args.values())


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_a_copy_gives_the_same_output(modulator: Modulator, residual: Tensor, token_ids: Tensor, how: str) -> None:
    nudge(modulator)
    if how == "deepcopy":
        twin = copy.deepcopy(modulator)
    elif how == "pickle":
        twin = pickle.loads(pickle.dumps(modulator))
    else:
        buffer = io.BytesIO()
        torch.save(modulator, buffer)
        buffer.seek(0)
        twin = torch.load(buffer, weights_only=False)
    expected = modulator(residual, 0, token_ids)
    assert torch.equal(twin(residual, 0, token_ids), expected)
    nudge(twin)
    assert torch.equal(modulator(residual, 0, token_ids), expected)


def test_parameter_groups_cover_every_trainable_parameter_once(modulator: Modulator) -> None:
    groups = modulator.parameter_groups(lr=1e-3, weight_decay=0.01)
    grouped = [p for group in groups for p in group["params"]]
    trainable = [p for p in modulator.parameters() if p.requires_grad]
    assert len(grouped) == len(trainable)
    assert {id(p) for p in grouped} == {id(p) for p in trainable}
    assert len({group["name"] for group in groups}) == len(groups)
    alphas = [group for group in groups if any(p is modulator.alpha_logits for p in group["params"])]
    assert [group["weight_decay"] for group in alphas] == [0.0] * isinstance(modulator.alpha_logits, nn.Parameter)
    assert all(group["weight_decay"] == 0.01 for group in groups if group["name"] != "alphas")
    torch.optim.AdamW(groups)


def test_alphas(modulator: Modulator, stream: ResidualStream) -> None:
    alphas = modulator.alphas
    assert alphas.shape == (stream.n_layers, len(modulator.expert_names))
    assert alphas.dtype == torch.float32
    torch.testing.assert_close(alphas, torch.full_like(alphas, 0.2), rtol=0, atol=1e-6)
    assert alphas.requires_grad == isinstance(modulator.alpha_logits, nn.Parameter)


def test_the_last_bits_of_a_bf16_stream(modulator: Modulator, residual: Tensor, token_ids: Tensor) -> None:
    """The result is the fp32 result, rounded once; the null space is the stream's own bits."""
    half = residual.bfloat16()
    out = modulator(half, 1, token_ids)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, modulator(half.float(), 1, token_ids).bfloat16())
    untouched = torch.ones(32, dtype=torch.bool)
    untouched[modulator.active_dims] = False
    assert torch.equal(out[..., untouched].view(torch.int16), half[..., untouched].view(torch.int16))


def test_autocast_changes_nothing(modulator: Modulator, residual: Tensor, token_ids: Tensor) -> None:
    plain = modulator(residual, 1, token_ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(modulator(residual, 1, token_ids), plain)


def test_it_leaves_its_input_alone(modulator: Modulator, residual: Tensor, token_ids: Tensor) -> None:
    before = residual.clone()
    modulator(residual, 0, token_ids)
    assert torch.equal(residual, before)


def test_a_token_does_not_see_its_neighbours(modulator: Modulator, residual: Tensor, token_ids: Tensor) -> None:
    whole = modulator(residual, 1, token_ids)
    part = modulator(residual[:, 5:9], 1, token_ids[:, 5:9])
    torch.testing.assert_close(part, whole[:, 5:9], rtol=1e-5, atol=1e-6)


def test_an_empty_sequence_comes_back_empty(modulator: Modulator) -> None:
    out = modulator(torch.zeros(2, 0, 32), 0, torch.zeros(2, 0, dtype=torch.long))
    assert out.shape == (2, 0, 32)


def test_wrong_width_and_layer(modulator: Modulator, residual: Tensor, token_ids: Tensor) -> None:
    name = type(modulator).__name__
    with pytest.raises(ValueError, match=rf"^{name} was built for width 32, got 24$"):
        modulator(residual[..., :24], 0, token_ids)
    for layer in (-1, 3):
        with pytest.raises(ValueError, match=rf"^layer {layer}: the modulator has 3, 0 … 2$"):
            modulator(residual, layer, token_ids)
