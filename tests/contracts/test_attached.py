"""What holds for every modulator on every backbone, once attached."""

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from modulators import Modulator, attach

pytestmark = pytest.mark.parametrize(
    "build", ["lerp", "lerp_fixed", "field", "field_scattered", "field_no_null", "field_no_validity"], indirect=True
)
LABELS = torch.tensor([[5, 6, 7, 1], [8, 9, 1, -100]])


def encode(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    return model.encoder(**batch).last_hidden_state


def test_it_modulates_when_attached_and_not_when_disabled_or_removed(
    model: PreTrainedModel, modulator: Modulator, batch: dict[str, Tensor]
) -> None:
    base = encode(model, batch)
    handle = attach(model, modulator)
    modulated = encode(model, batch)
    assert (modulated - base).abs().max() > 1e-3
    with handle.disabled():
        assert torch.equal(encode(model, batch), base)
        with handle.disabled():
            assert torch.equal(encode(model, batch), base)
        assert torch.equal(encode(model, batch), base)  # leaving the inner one does not switch it on
    assert torch.equal(encode(model, batch), modulated)
    handle.remove()
    handle.remove()
    assert torch.equal(encode(model, batch), base)


def test_scaled_alpha(model: PreTrainedModel, modulator: Modulator, batch: dict[str, Tensor]) -> None:
    base = encode(model, batch)
    handle = attach(model, modulator)
    modulated = encode(model, batch)
    with handle.scaled(0.0):
        assert torch.equal(encode(model, batch), base)
    with handle.scaled(0.5):
        half = encode(model, batch)
        with handle.scaled(2.0):
            assert torch.equal(encode(model, batch), modulated)
        assert torch.equal(encode(model, batch), half)
    assert 0 < (half - base).norm() < (modulated - base).norm()
    with pytest.raises(KeyboardInterrupt), handle.scaled(2.0):
        raise KeyboardInterrupt
    assert torch.equal(encode(model, batch), modulated)
    with pytest.raises(ValueError, match=r"^scaled: factor is nan; it must be finite$"), handle.scaled(float("nan")):
        pass


def test_disabled_is_over_after_an_error(
    model: PreTrainedModel, modulator: Modulator, batch: dict[str, Tensor]
) -> None:
    handle = attach(model, modulator)
    modulated = encode(model, batch)
    with pytest.raises(KeyboardInterrupt), handle.disabled():
        raise KeyboardInterrupt
    assert torch.equal(encode(model, batch), modulated)


def test_exactly_its_own_parameters_train(
    model: PreTrainedModel, modulator: Modulator, batch: dict[str, Tensor]
) -> None:
    attach(model, modulator)
    before = {name: p.detach().clone() for name, p in modulator.named_parameters()}
    frozen = {name: p.detach().clone() for name, p in model.state_dict().items()}
    # No momentum and no normalisation: the step is the gradient.
    optimizer = torch.optim.SGD(modulator.parameter_groups(lr=10.0, weight_decay=0.0), lr=10.0)
    loss = model(**batch, labels=LABELS).loss
    loss.backward()
    for name, p in modulator.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
    assert all(p.grad is None for p in model.parameters())
    optimizer.step()
    assert set(frozen) == set(model.state_dict())
    assert all(torch.equal(p, frozen[name]) for name, p in model.state_dict().items())
    # An edge's two features are equal (see modulators/field.py): what hangs on them alone does not move.
    moving = [name for name in before if ".k1." not in name]
    assert all(not torch.equal(p, before[name]) for name, p in modulator.named_parameters() if name in moving)
    with torch.no_grad():
        assert model(**batch, labels=LABELS).loss < loss


def test_other_hooks_survive(model: PreTrainedModel, modulator: Modulator, batch: dict[str, Tensor]) -> None:
    seen: list[str] = []
    block = model.encoder.block[1]
    block.register_forward_pre_hook(lambda *_: seen.append("before"))
    handle = attach(model, modulator)
    block.register_forward_pre_hook(lambda *_: seen.append("after"))
    block.register_forward_hook(lambda *_: seen.append("output"))
    model.encoder.register_forward_hook(lambda *_: seen.append("encoder"))
    expected = ["before", "after", "output", "encoder"]
    encode(model, batch)
    with handle.disabled():
        encode(model, batch)
    handle.remove()
    encode(model, batch)
    assert seen == 3 * expected


def test_layers_modulates_only_those(model: PreTrainedModel, modulator: Modulator, batch: dict[str, Tensor]) -> None:
    def record(into: dict[int, Tensor]) -> None:
        for i, block in enumerate(model.encoder.block):
            block.register_forward_pre_hook(lambda _, args, i=i: into.update({i: args[0].clone()}))

    before: dict[int, Tensor] = {}
    after: dict[int, Tensor] = {}
    record(before)
    handle = attach(model, modulator, layers=[2, 1])
    record(after)
    encode(model, batch)
    assert handle.layers == [1, 2]
    assert torch.equal(before[0], after[0])
    for i in (1, 2):
        assert torch.equal(after[i], modulator(before[i], i, batch["input_ids"]))
        assert not torch.equal(after[i], before[i])


def test_null_space_leaves_bit_identical(
    model: PreTrainedModel, modulator: Modulator, batch: dict[str, Tensor]
) -> None:
    """Of the first block only: later ones read what attention has mixed."""
    seen: list[Tensor] = []
    model.encoder.block[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    attach(model, modulator)
    model.encoder.block[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    encode(model, batch)
    before, after = seen
    untouched = torch.ones(before.shape[-1], dtype=torch.bool)
    untouched[modulator.active_dims] = False
    assert torch.equal(before[..., untouched].view(torch.int32), after[..., untouched].view(torch.int32))
    assert (before != after)[..., ~untouched].any(0).any(0).all()


def test_extra_padding_changes_nothing_on_the_real_tokens(
    model: PreTrainedModel, modulator: Modulator, batch: dict[str, Tensor]
) -> None:
    attach(model, modulator)
    short = encode(model, batch)
    padded = encode(model, {name: nn.functional.pad(t, (0, 9)) for name, t in batch.items()})
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(padded[:, :72][real], short[real], rtol=1e-4, atol=1e-5)


def test_bf16_stream(model: PreTrainedModel, modulator: Modulator, batch: dict[str, Tensor]) -> None:
    attach(model, modulator)
    full = encode(model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = encode(model, batch)
    model.to(torch.bfloat16)
    half = encode(model, batch)
    assert half.dtype == torch.bfloat16
    # Outputs are RMS-normalised: entries near 1. bf16 keeps 8 bits, over three layers.
    assert (mixed.float() - full).square().mean().sqrt() < 0.03
    assert (half.float() - full).square().mean().sqrt() < 0.03
