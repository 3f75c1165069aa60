"""Interference attention: its identities, and that all forms are one."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from wavegpt import interference_attention
from wavegpt.attention.features import packed
from wavegpt.attention.kernels import pairwise, source_attention
from wavegpt.attention.linear import causal_linear
from wavegpt.attention.phases import ladder, rotate, running_phase, turned

FORMS = {"softmax": ("matmul", "sdpa", "auto"), "sum": ("matmul", "chunked", "auto"), "energy": ("matmul", "auto")}


def drawn(T: int, W: int = 3, h: int = 6, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    """Amplitude and phase of queries and keys, and values."""
    g = torch.Generator().manual_seed(seed)
    waves = (2, 2, T, W)
    return [
        torch.rand(waves, generator=g, dtype=dtype) + 0.1, 3 * torch.randn(waves, generator=g, dtype=dtype),
        torch.rand(waves, generator=g, dtype=dtype) + 0.1, 3 * torch.randn(waves, generator=g, dtype=dtype),
        torch.randn(2, 2, T, h, generator=g, dtype=dtype),
    ]  # fmt: skip


@given(T=st.sampled_from([1, 5, 64, 65, 150]), W=st.integers(1, 5), seed=st.integers(0, 99), scale=st.floats(0.1, 2))
def test_all_forms_are_equal(T: int, W: int, seed: int, scale: float) -> None:
    inputs = drawn(T, W, seed=seed)
    for normalise, impls in FORMS.items():
        for terms in ("full", "cross", "difference") if normalise == "softmax" else ("full",):
            naive = interference_attention(*inputs, terms=terms, normalise=normalise, scale=scale)
            for impl in impls:
                fast = interference_attention(*inputs, terms=terms, normalise=normalise, scale=scale, impl=impl)
                torch.testing.assert_close(fast, naive, atol=1e-12, rtol=1e-10)


def test_all_forms_are_equal_in_fp32() -> None:
    inputs = drawn(130, 8, 16, torch.float32)
    for normalise, impls in FORMS.items():
        naive = interference_attention(*inputs, normalise=normalise)
        for impl in impls:
            fast = interference_attention(*inputs, normalise=normalise, impl=impl)
            torch.testing.assert_close(fast, naive, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("normalise", FORMS)
def test_gradients(normalise: str) -> None:
    inputs = [part.requires_grad_() for part in drawn(5, 2, 3)]
    for impl in ("naive", *FORMS[normalise]):
        function = lambda *args, impl=impl: interference_attention(*args, normalise=normalise, impl=impl)  # noqa: E731
        assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"terms": "half"}, "terms is 'half'"),
        ({"normalise": "max"}, "normalise is 'max'"),
        ({"impl": "fast"}, "impl is 'fast'"),
        ({"normalise": "energy", "impl": "sdpa"}, "fused attention is a softmax"),
        ({"impl": "chunked"}, "no finite feature map"),
        ({"normalise": "sum", "terms": "cross"}, "needs terms: full"),
    ],
)
def test_what_has_no_form_is_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        interference_attention(*drawn(3), **options)


def test_intensity_over_energy_lies_between_0_and_1_and_is_1_of_itself() -> None:
    A_q, theta, A_k, other, _ = drawn(20)
    weights = pairwise(
        A_q.unsqueeze(-2), A_k.unsqueeze(-3), theta.unsqueeze(-2) - other.unsqueeze(-3), "full", "energy"
    )
    assert weights.min() >= 0
    assert weights.max() <= 1
    own = pairwise(A_q.unsqueeze(-2), A_q.unsqueeze(-3), theta.unsqueeze(-2) - theta.unsqueeze(-3), "full", "energy")
    torch.testing.assert_close(own.diagonal(dim1=-2, dim2=-1), torch.ones(2, 2, 20, dtype=torch.float64))


def test_weights_sum_to_1_where_they_are_normalised_and_grow_with_t_where_not() -> None:
    A_q, theta_q, A_k, theta_k, _ = drawn(64)
    ones = torch.ones(2, 2, 64, 1, dtype=torch.float64)
    for normalise in ("softmax", "sum"):
        y = interference_attention(A_q, theta_q, A_k, theta_k, ones, normalise=normalise)
        torch.testing.assert_close(y, ones)
    energy = interference_attention(A_q, theta_q, A_k, theta_k, ones, normalise="energy")
    assert energy[..., -1, 0].mean() > 20 * energy[..., 0, 0].mean()


def test_fixed_frequencies_are_rotary_positions() -> None:
    A_q, phi_q, A_k, phi_k, value = drawn(12)
    angle = turned(torch.arange(12), ladder(3, 10_000.0), torch.float64)
    q, k = (rotate(packed(A, phi), angle.cos(), angle.sin()) for A, phi in ((A_q, phi_q), (A_k, phi_k)))
    plain = F.scaled_dot_product_attention(q, k, value, is_causal=True, scale=2.0)
    ours = interference_attention(A_q, phi_q + angle, A_k, phi_k + angle, value, terms="cross")
    torch.testing.assert_close(ours, plain, atol=1e-12, rtol=0)


def test_the_query_amplitude_cancels_and_the_rest_is_a_key_bias() -> None:
    A_q, theta_q, A_k, theta_k, value = drawn(9)
    products = packed(A_q, theta_q) @ packed(A_k, theta_k).mT
    causal = torch.ones(9, 9, dtype=torch.bool).tril()
    anything = torch.randn(2, 2, 9, 1, dtype=torch.float64)
    for terms, sign in (("full", 1), ("cross", 0), ("difference", -1)):
        logits = 2 * products + sign * A_k.square().sum(-1).unsqueeze(-2) + anything
        plain = logits.masked_fill(~causal, -math.inf).softmax(-1) @ value
        torch.testing.assert_close(interference_attention(A_q, theta_q, A_k, theta_k, value, terms=terms), plain)


def test_zeros_in_features_and_values_change_nothing() -> None:
    """W = 3 has 7 features, padded to 8; values of 6 are padded too; both ways round."""
    inputs = drawn(9, 3, 6)
    wide = drawn(9, 3, 20)
    for args in (inputs, wide):
        torch.testing.assert_close(interference_attention(*args, impl="sdpa"), interference_attention(*args))


def source_inputs(T: int, shift: int = 0, equal: bool = False) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor]:
    A, phi, omega, other, value = drawn(T)
    omega = torch.full_like(omega, 0.7) if equal else omega
    t = (torch.arange(T).double() + shift)[:, None].expand(2, 2, T, 1)
    return (A, phi, omega, t, torch.ones_like(t)), (A, other, omega, t), value


@pytest.mark.parametrize("normalise", ["softmax", "sum", "energy"])
def test_the_source_phase_is_translation_invariant_and_blind_where_frequencies_are_equal(normalise: str) -> None:
    query, key, value = source_inputs(9)
    y = source_attention(query, key, value, None, "full", normalise)
    moved = source_attention(*source_inputs(9, shift=100), None, "full", normalise)
    torch.testing.assert_close(moved, y, atol=1e-10, rtol=0)
    query, key, value = source_inputs(9, equal=True)
    still = tuple(part if i != 3 else torch.zeros_like(part) for i, part in enumerate(query))
    still_key = (*key[:3], torch.zeros_like(key[3]))
    torch.testing.assert_close(
        source_attention(query, key, value, None, "full", normalise),
        source_attention(still, still_key, value, None, "full", normalise),
    )


def test_the_source_form_in_pieces_is_the_whole_with_its_gradient() -> None:
    query, key, value = source_inputs(150)
    omega = query[2].clone().requires_grad_()
    query, key = (*query[:2], omega, *query[3:]), (*key[:2], omega, key[3])
    y = source_attention(query, key, value, None, "full", "energy")
    angle = (omega.unsqueeze(-2) - omega.unsqueeze(-3)) * (torch.arange(150)[:, None] - torch.arange(150))[..., None]
    angle = angle + query[1].unsqueeze(-2) - key[1].unsqueeze(-3)
    whole = pairwise(query[0].unsqueeze(-2), key[0].unsqueeze(-3), angle, "full", "energy").tril() @ value
    torch.testing.assert_close(y, whole)
    weights = torch.randn_like(y)
    torch.testing.assert_close(
        torch.autograd.grad((y * weights).sum(), omega), torch.autograd.grad((whole * weights).sum(), omega)
    )


def test_half_of_the_sine_kernel_is_no_interference() -> None:
    a, b = torch.randn(2, 50, dtype=torch.float64)
    torch.testing.assert_close(a.sin() * b.sin(), ((a - b).cos() - (a + b).cos()) / 2)


@given(T=st.integers(1, 40), chunk=st.integers(1, 16), seed=st.integers(0, 99))
def test_chunks_are_the_quadratic_form(T: int, chunk: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(1, 2, T, 4, generator=g, dtype=torch.float64) for _ in "qkv")
    sums, total = causal_linear(q, k, v, chunk)
    weights = (q @ k.mT).tril()
    torch.testing.assert_close(sums, weights @ v)
    torch.testing.assert_close(total, weights.sum(-1, keepdim=True))


def test_running_phases_go_on_modulo_two_pi() -> None:
    omega = torch.randn(1, 1, 500, 2, dtype=torch.float64) + 2
    whole = running_phase(omega)
    first = running_phase(omega[:, :, :300])
    rest = running_phase(omega[:, :, 300:], first[:, :, -1:])
    joined = torch.cat([first, rest], dim=2)
    torch.testing.assert_close(torch.polar(torch.ones_like(whole), joined), torch.polar(torch.ones_like(whole), whole))
    torch.testing.assert_close(whole.cos(), omega.cumsum(2).cos())


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch on itself
def test_the_gradient_of_features_is_that_of_the_formula() -> None:
    inputs = [torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)]
    inputs.append(torch.randn(3, 1, dtype=torch.float64))
    for part in inputs:
        part.requires_grad_()
    assert torch.autograd.gradcheck(lambda A, theta, last: packed(A, theta, last, 3), inputs)
    values, tangents = torch.func.jvp(
        lambda theta: packed(inputs[0], theta, inputs[2], 3), (inputs[1],), (torch.ones_like(inputs[1]),)
    )
    torch.testing.assert_close(values, packed(*inputs, 3))
    torch.testing.assert_close(tangents[..., :4], -values[..., 4:8])
