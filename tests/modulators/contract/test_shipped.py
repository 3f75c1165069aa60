"""The contract, check by check, for every modulator that is shipped; and what is true of these alone."""

from collections.abc import Callable
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from modulators import Modulator, attach
from modulators.contract.alone import ALONE
from modulators.contract.attached import ATTACHED
from modulators.contract.cases import LABELS, STREAM, Build, encode, residual, token_ids
from modulators.contract.machinery import MACHINERY, compiles_in_one_graph
from tests.modulators.contract import conftest

attached = pytest.mark.parametrize("build", conftest.ATTACHED, indirect=True)
one_of_each = pytest.mark.parametrize("build", ["lerp", "field", "centred"], indirect=True)
by_name: Any = {"ids": lambda check: check.__name__}


@pytest.mark.parametrize("check", ALONE, **by_name)
def test_alone(check: Callable[[Build], None], build: Build) -> None:
    check(build)


@attached
@pytest.mark.parametrize("check", ATTACHED, **by_name)
def test_attached(check: Callable[[Build, Any], None], build: Build, model: PreTrainedModel) -> None:
    check(build, model)


@one_of_each  # what the formula is does not matter here, and these are slow
@pytest.mark.parametrize("check", MACHINERY, **by_name)
def test_machinery(check: Callable[[Build, Any], None], build: Build, model: PreTrainedModel) -> None:
    check(build, model)


# torch warns of its own code while it loads inductor.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
@one_of_each
@pytest.mark.parametrize("model", ["t5_v1_0", pytest.param("umt5", marks=pytest.mark.slow)], indirect=True)
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled(build: Build, model: PreTrainedModel, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The shape checks that pytest switches on do not compile; outside tests there are none.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    compiles_in_one_graph(build, model, backend)


@pytest.mark.parametrize("name", conftest.MODULATORS)
def test_alphas_start_where_they_were_asked_to(name: str) -> None:
    modulator = conftest.MODULATORS[name](STREAM)
    torch.testing.assert_close(modulator.alphas, torch.full_like(modulator.alphas, 0.2), rtol=0, atol=1e-6)


def test_wrong_width_and_layer(modulator: Modulator) -> None:
    name = type(modulator).__name__
    with pytest.raises(ValueError, match=rf"^{name} was built for width 32, got 24$"):
        modulator(residual()[..., :24], 0, token_ids())
    for layer in (-1, 3):
        with pytest.raises(ValueError, match=rf"^layer is {layer}; the modulator has 3 layers, it must be 0 … 2$"):
            modulator(residual(), layer, token_ids())


@attached
def test_a_step_lowers_the_loss(model: PreTrainedModel, modulator: Modulator, batch: dict[str, Tensor]) -> None:
    attach(model, modulator)
    before = {name: p.detach().clone() for name, p in modulator.named_parameters()}
    # No momentum and no normalisation: the step is the gradient.
    optimizer = torch.optim.SGD(modulator.parameter_groups(lr=1.0, weight_decay=0.0), lr=1.0)
    loss = model(**batch, labels=LABELS).loss
    loss.backward()
    optimizer.step()
    # An edge's two features are equal (see modulators/field.py): what hangs on them alone does not move.
    moving = [name for name, p in modulator.named_parameters() if ".k1." not in name and p.requires_grad]
    assert all(not torch.equal(p, before[name]) for name, p in modulator.named_parameters() if name in moving)
    with torch.no_grad():
        assert model(**batch, labels=LABELS).loss < loss


@attached
def test_it_changes_much_and_half_of_it_less(
    model: PreTrainedModel, modulator: Modulator, batch: dict[str, Tensor]
) -> None:
    base = encode(model, batch)
    handle = attach(model, modulator)
    modulated = encode(model, batch)
    assert (modulated - base).abs().max() > 1e-3
    with handle.scaled(0.5):
        assert 0 < (encode(model, batch) - base).norm() < (modulated - base).norm()


@attached
def test_every_active_dimension_is_changed(
    model: PreTrainedModel, modulator: Modulator, batch: dict[str, Tensor]
) -> None:
    before = model.encoder.embed_tokens(batch["input_ids"])
    after = modulator(before, 0, batch["input_ids"])
    assert (before != after)[..., modulator.active_dims].any(0).any(0).all()


@attached
def test_what_is_switched_is_switched_back_after_an_error(
    model: PreTrainedModel, modulator: Modulator, batch: dict[str, Tensor]
) -> None:
    handle = attach(model, modulator)
    modulated = encode(model, batch)
    with pytest.raises(KeyboardInterrupt), handle.disabled():
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), handle.scaled(2.0):
        raise KeyboardInterrupt
    assert torch.equal(encode(model, batch), modulated)
    with pytest.raises(ValueError, match=r"^scaled: factor is nan; it must be finite$"), handle.scaled(float("nan")):
        pass
