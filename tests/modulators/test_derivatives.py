"""Gradients by torch.func, forward mode and inside autocast are those of a plain backward pass."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jvp, vmap

from modulators import FieldModulator, LerpModulator, Modulator, ResidualStream
from modulators.contract.cases import moved

STREAM = ResidualStream(16, 2, 50)
MODULATORS: dict[str, Callable[[], Modulator]] = {
    "field": lambda: FieldModulator(STREAM, initial_alpha=0.2),
    "scattered": lambda: FieldModulator(STREAM, initial_alpha=0.2, null_space_position="scattered"),
    "centred": lambda: moved(lambda stream: FieldModulator(stream, initial_alpha=0.2, gate="centred"))(STREAM),
    "lerp": lambda: LerpModulator(STREAM, n_geometric_dims=4, initial_alpha=0.2),
}


@pytest.fixture(params=MODULATORS)
def modulator(request: pytest.FixtureRequest) -> Modulator:
    return MODULATORS[request.param]()


def inputs() -> tuple[Tensor, Tensor]:
    return torch.randn(3, 5, 16), torch.randint(0, 50, (3, 5))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")  # which torch itself calls for jvp
def test_torch_func(modulator: Modulator) -> None:
    stream, ids = inputs()
    stream = stream.double()
    parameters = dict(modulator.double().named_parameters())

    def loss(parameters: Any, stream: Tensor, ids: Tensor) -> Tensor:
        out: Tensor = functional_call(modulator, parameters, (stream, 0, ids))
        return out.square().sum()

    variable = stream.clone().requires_grad_()
    loss(parameters, variable, ids).backward()
    expected = {name: p.grad for name, p in parameters.items()}
    whole = grad(loss)(parameters, stream, ids)
    per_example = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, stream[:, None], ids[:, None])
    for name, value in expected.items():
        torch.testing.assert_close(whole[name], value, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(per_example[name].sum(0), value, atol=1e-4, rtol=1e-4)

    towards = torch.randn_like(stream)
    assert variable.grad is not None
    slope = (variable.grad * towards).sum()
    _, by_jvp = jvp(lambda x: loss(parameters, x, ids), (stream,), (towards,))
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(loss(parameters, forward_ad.make_dual(stream, towards), ids))
    torch.testing.assert_close(by_jvp, slope, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(dual.tangent, slope, rtol=1e-3, atol=1e-3)

    def of_alpha(logits: Tensor) -> Tensor:
        return loss({**parameters, "alpha_logits": logits}, stream, ids)

    curvature = hessian(of_alpha)(modulator.alpha_logits.detach()).flatten(0, 1).flatten(1)
    assert torch.allclose(curvature, curvature.t(), atol=1e-3)
    assert bool(curvature.any())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_backward_pass_inside_autocast(modulator: Modulator, dtype: torch.dtype) -> None:
    """PyTorch advises against it, and many do it: of a modulator it gives the gradients that it gives outside."""
    stream, ids = inputs()
    above = torch.randn_like(stream)

    def gradients(inside: bool) -> list[Tensor | None]:
        modulator.zero_grad()
        variable = stream.clone().requires_grad_()
        with torch.autocast("cpu", dtype):
            out = modulator(variable, 0, ids)
            if inside:
                out.backward(above)
        if not inside:
            out.backward(above)
        return [variable.grad, *(p.grad for p in modulator.parameters())]

    # what autograd computes of LERP's own projection by itself is in 16 bits there
    tolerance = 0.02 if isinstance(modulator, LerpModulator) else 0.0
    for inside, outside in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(inside, outside, rtol=tolerance, atol=tolerance)
