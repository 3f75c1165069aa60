"""The written-out gradient of the field's arithmetic, against autograd's of the formula as it stands."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modulators.field import arithmetic as field_arithmetic
from modulators.field.arithmetic import FieldWeights, autograd_modulated_rows, modulated_rows, uniformly_modulated_rows

WIDTH = 9


def arguments(
    ks: tuple[int, ...], n_active: int, alpha: float, validity: bool = True, linear: bool = False
) -> list[Any]:
    """Rows, α, then the weights of `FieldWeights`, as leaves in fp64."""
    torch.manual_seed(len(ks))
    n, length = len(ks), max(k * (k + 1) // 2 + 1 for k in ks) + 1
    coordinates = sum(k * (k + 1) // 2 + 1 if linear else 5 * k for k in ks)
    shapes = [(7, WIDTH), (n,), (coordinates, n_active), (coordinates,), (n, length), (n, length), (n, length)]
    rows, alphas, *weights, to_validity = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    gates = torch.randn(n, length, n_active, dtype=torch.float64)
    norm, shift = weights[2:]
    for e, k in enumerate(ks):
        size = k * (k + 1) // 2 + 1
        norm[e, size:], shift[e, size:], shift[e, -1] = 0, 0, 1
        to_validity[e, size:-1], gates[e, size:-1] = 0, 0
    leaves = [rows, alphas.fill_(alpha), *weights, to_validity if validity else None, gates]
    return [None if leaf is None else leaf.requires_grad_() for leaf in leaves]


def run(function: Any, leaves: list[Any], ks: tuple[int, ...], **form: bool) -> list[Tensor]:
    """The result and the gradients; of padding and of the constant one there is none to compare."""
    rows, alpha, *weights = leaves
    out = function(rows, alpha, FieldWeights(*weights), ks, **form)
    present = [leaf for leaf in leaves if leaf is not None]
    gradients = torch.autograd.grad(out.square().sum(), present, allow_unused=True)
    for n, leaf in enumerate(leaves[4:], start=4):  # those that are padded
        gradient = None if leaf is None else gradients[n if leaves[6] is not None or n < 6 else n - 1]
        for e, k in enumerate(ks):
            size = k * (k + 1) // 2 + 1
            if gradient is not None:
                gradient[e, size : -1 if n > 5 else None] = 0
    return [out.detach(), *gradients]


@pytest.mark.parametrize("ks", [(1,), (1, 2, 4), (3, 1), (4, 3, 2, 1)], ids=str)
@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
@pytest.mark.parametrize("form", ["validity", "none", "centred", "linear"])
@pytest.mark.parametrize("at_once", [1, 1 << 18])
def test_value_and_gradients(
    ks: tuple[int, ...], alpha: float, form: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond α = 1 too, where a factor may vanish; token by token, and all together."""
    monkeypatch.setattr(field_arithmetic, "_CHUNK", at_once)
    leaves = arguments(ks, 6, alpha, form == "validity", form == "linear")
    how = {"centred": form in ("centred", "linear"), "linear": form == "linear"}
    ours, plain = (run(function, leaves, ks, **how) for function in (modulated_rows, autograd_modulated_rows))
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_a_stream_that_asks_for_no_gradient_changes_no_other_one() -> None:
    """As at the lowest block, whose stream comes from frozen embeddings."""
    ks = (1, 2, 4)
    rows, alpha, *weights = arguments(ks, 6, 0.2)
    found = []
    for stream in (rows, rows.detach()):
        out = modulated_rows(stream, alpha, FieldWeights(*weights), ks)
        found.append(torch.autograd.grad(out.square().sum(), [alpha, *weights]))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_gates_that_are_shut_where_nothing_is_kept() -> None:
    leaves = arguments((1, 2, 4), 6, 1.0)
    with torch.no_grad():
        leaves[-1][0, -1] = -1e4  # the first expert's biases: a factor of exactly 0
    out, *gradients = run(modulated_rows, leaves, (1, 2, 4))
    assert not out[:, :6].any()
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("n_active", [6, WIDTH])
def test_bf16_rows_are_computed_in_the_weights_precision_and_keep_little(n_active: int) -> None:
    rows, *others = (leaf.detach().float().requires_grad_() for leaf in arguments((1, 2, 4), n_active, 0.2))
    half = rows.detach().bfloat16().requires_grad_()
    alpha, *weights = others
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = modulated_rows(half, alpha, FieldWeights(*weights), (1, 2, 4))
    assert out.dtype == torch.bfloat16
    exact = modulated_rows(half.detach().float(), alpha, FieldWeights(*weights), (1, 2, 4))
    assert torch.equal(out, exact.bfloat16())
    assert torch.equal(out[:, n_active:], half[:, n_active:])
    wide = [tensor for tensor in kept if tensor.shape[:1] == (7,)]  # a row a token: the stream, as it came
    assert [tensor.dtype for tensor in wide] == [torch.bfloat16]
    out.sum().backward()
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16


@settings(deadline=None, max_examples=60)
@given(alphas=st.lists(st.floats(0, 8, width=32), min_size=3, max_size=3), rows=st.integers(1, 5))
def test_gates_of_zero_give_a_centred_factor_of_exactly_one(alphas: list[float], rows: int) -> None:
    """Of any α, scaled ones too, in fp32; and then no gradient but the gates' and the stream's."""
    h, _, *weights = (None if leaf is None else leaf.detach().float() for leaf in arguments((1, 2, 4), 6, 0.2, False))
    h, alpha = h[:rows].requires_grad_(), torch.tensor(alphas).requires_grad_()
    weights[-1].zero_()
    leaves = [tensor if tensor is None else tensor.requires_grad_() for tensor in weights]
    for function in (modulated_rows, autograd_modulated_rows):
        out = function(h, alpha, FieldWeights(*leaves), (1, 2, 4), centred=True)
        assert torch.equal(out, h)
    uniform = uniformly_modulated_rows(h, alpha, leaves[-1])
    assert torch.equal(uniform, h)
    modulated_rows(h, alpha, FieldWeights(*leaves), (1, 2, 4), centred=True).backward(torch.randn(rows, WIDTH))
    assert alpha.grad is not None
    assert not alpha.grad.any()
