"""An attached modulator under the machinery around it: generation, gradient checkpointing, copies, compilation."""

import copy

import jaxtyping
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from modulators import Modulator, attach

# What the formula is does not matter here, and these are slow: one of each kind will do.
pytestmark = pytest.mark.parametrize("build", ["lerp", "field"], indirect=True)
LABELS = torch.tensor([[5, 6, 7, 1], [8, 9, 1, -100]])


def encode(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    return model.encoder(**batch).last_hidden_state


def test_generate_is_the_base_when_disabled_or_removed(
    model: PreTrainedModel, modulator: Modulator, batch: dict[str, Tensor]
) -> None:
    def write(**how: object) -> Tensor:
        return model.generate(**batch, max_new_tokens=8, **how)

    base, base_beams = write(do_sample=False), write(do_sample=False, num_beams=3)
    handle = attach(model, modulator)
    passes: list[int] = []
    counting = model.encoder.register_forward_hook(lambda *_: passes.append(1))
    write(do_sample=False)
    write(do_sample=False, num_beams=3)
    assert len(passes) == 2  # the encoder runs once for each, beams or not
    counting.remove()
    with handle.disabled():
        assert torch.equal(write(do_sample=False), base)
        assert torch.equal(write(do_sample=False, num_beams=3), base_beams)
    handle.remove()
    assert torch.equal(write(do_sample=False), base)
    assert torch.equal(write(do_sample=False, num_beams=3), base_beams)


def test_generate_reads_the_modulated_encoder(
    model: PreTrainedModel, modulator: Modulator, batch: dict[str, Tensor]
) -> None:
    attach(model, modulator)
    given = model.encoder(**batch)
    attention_mask = batch["attention_mask"]
    with torch.no_grad():
        ours = model.generate(
            **batch, max_new_tokens=8, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        theirs = model.generate(
            encoder_outputs=given,
            attention_mask=attention_mask,
            max_new_tokens=8,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    assert all(torch.equal(a, b) for a, b in zip(ours.logits, theirs.logits, strict=True))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(
    model: PreTrainedModel, modulator: Modulator, batch: dict[str, Tensor], use_reentrant: bool
) -> None:
    """Two forward passes before the two backward ones: a recomputed block must see its own batch."""
    attach(model, modulator)
    other = {"input_ids": batch["input_ids"].flip(0), "attention_mask": batch["attention_mask"].flip(0)}

    def gradients() -> list[Tensor]:
        modulator.zero_grad()
        first, second = model(**batch, labels=LABELS).loss, 3 * model(**other, labels=LABELS).loss
        first.backward()
        second.backward()
        return [p.grad.clone() for p in modulator.parameters() if p.grad is not None]

    plain = gradients()
    # Renamed in transformers 5.23; the old name warns.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": use_reentrant})
    for block in model.encoder.block:
        block.training = True  # transformers checkpoints in training mode only; dropout below stays off
    runs: list[int] = []
    model.encoder.block[1].layer[0].register_forward_hook(lambda *_: runs.append(1))
    checkpointed = gradients()
    assert len(runs) == 4  # each pass was recomputed
    assert len(plain) == len(checkpointed) == len(list(modulator.parameters()))
    for a, b in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_model_keeps_its_state_dict_and_can_be_copied(
    model: PreTrainedModel, modulator: Modulator, batch: dict[str, Tensor]
) -> None:
    base, keys = encode(model, batch), list(model.state_dict())
    handle = attach(model, modulator)
    assert list(model.state_dict()) == keys
    twin = copy.deepcopy(model)
    handle.remove()
    assert torch.equal(encode(model, batch), base)
    assert not torch.equal(encode(twin, batch), base)  # a copy has hooks of its own


# torch warns of its own code while it loads inductor.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
@pytest.mark.parametrize("model", ["t5_v1_0", pytest.param("umt5", marks=pytest.mark.slow)], indirect=True)
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_the_encoder_compiles_in_one_graph(
    model: PreTrainedModel,
    modulator: Modulator,
    batch: dict[str, Tensor],
    backend: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The shape checks that pytest switches on do not compile; outside tests there are none.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    base = encode(model, batch)
    handle = attach(model, modulator)
    modulated = encode(model, batch)
    torch._dynamo.reset()
    compiled = torch.compile(model.encoder, fullgraph=True, backend=backend)

    def out() -> Tensor:
        return compiled(**batch).last_hidden_state

    torch.testing.assert_close(out(), modulated, rtol=1e-4, atol=1e-4)
    with handle.disabled():
        torch.testing.assert_close(out(), base, rtol=1e-4, atol=1e-4)
    out().square().mean().backward()
    assert all(p.grad is not None for p in modulator.parameters())
    handle.remove()
    torch.testing.assert_close(out(), base, rtol=1e-4, atol=1e-4)
