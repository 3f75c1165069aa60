"""The written-out gradient of the field's gates, against autograd's of the formula as it stands."""

import pytest
import torch
from torch import Tensor

from modulators.gating import gated, plainly_gated


def arguments(n: int, n_active: int, width: int, tokens: int = 6, kept: float = 0.8) -> list[Tensor]:
    torch.manual_seed(n)
    sizes = [2, 4, 11, 7][:n]
    shapes = [(tokens, width), (n, tokens), (n,), *((tokens, f) for f in sizes)]
    shapes += [*((n_active, f) for f in sizes), *[(n_active,)] * n]
    values = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    values[1], values[2] = 0.2 * values[1].sigmoid(), torch.full((n,), kept, dtype=torch.float64)
    return values


def call(function: object, values: list[Tensor]) -> Tensor:
    rows, strength, kept, *each = values
    n = len(kept)
    return function(rows, strength, kept, each[:n], each[n : 2 * n], each[2 * n :])  # type: ignore[operator,no-any-return]


@pytest.mark.parametrize(("n", "n_active", "width"), [(1, 5, 5), (2, 5, 8), (3, 6, 8), (4, 3, 3)])
@pytest.mark.parametrize("kept", [0.8, 0.0, -1.0], ids="kept {}".format)
def test_value_and_gradients(n: int, n_active: int, width: int, kept: float) -> None:
    """Beyond α = 1 too, where a factor may vanish: nothing is divided by it."""
    results = []
    for function in (gated, plainly_gated):
        leaves = [value.clone().requires_grad_() for value in arguments(n, n_active, width, kept=kept)]
        out = call(function, leaves)
        out.square().sum().backward()
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


def test_a_gate_that_is_shut_where_nothing_is_kept() -> None:
    values = [value.requires_grad_() for value in arguments(3, 6, 8, kept=0.0)]
    with torch.no_grad():
        values[-3].fill_(-1e4)  # the first expert's biases: a factor of exactly 0
    out = call(gated, values)
    assert not out[:, :6].any()
    out.sum().backward()
    assert all(bool(value.grad.isfinite().all()) for value in values)


def test_bf16_rows_are_computed_in_the_gates_precision_and_keep_little() -> None:
    values = [value.float() for value in arguments(3, 6, 8)]
    values[0] = values[0].bfloat16().requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        out = call(gated, values)
    assert out.dtype == torch.bfloat16
    exact = call(plainly_gated, [values[0].detach().float(), *values[1:]])
    assert torch.equal(out, exact.bfloat16())
    wide = [t for t in kept if t.shape == (6, 8)]
    assert len(wide) == 1  # the stream itself, in its own precision
    assert wide[0].dtype == torch.bfloat16
    out.sum().backward()
    assert values[0].grad is not None
    assert values[0].grad.dtype == torch.bfloat16
