"""torch.compile: one graph with the hooks in it, few of them over an epoch's shapes, and the eager model's results."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from torch._dynamo.utils import counters
from torch.utils.data import DataLoader
from transformers import T5Config, T5ForConditionalGeneration

from modulant.compiling import compiled
from modulators import FieldModulator, LerpModulator, ModulatedT5, Modulator, attach, stream_of
from tests.modulators.training.fits import SMALL_LERP, trainer

# What a definition's batch can look like: (examples, source tokens, target tokens), the shortest and the last included.
SHAPES = [(4, 16, 2), (4, 7, 2), (3, 9, 2), (4, 12, 2), (4, 17, 2), (4, 33, 2), (3, 64, 2), (4, 93, 2)]
FEW = 2  # graphs for all of them


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # beartype is nothing to compile
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def small(layers: int = 2) -> Any:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 100,
        "d_model": 16,
        "d_kv": 4,
        "d_ff": 16,
        "num_heads": 4,
        "num_layers": 2,
        "num_decoder_layers": 1,
    }
    return T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)).requires_grad_(False).eval()


def batch(examples: int, tokens: int, target: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(tokens)
    ids = torch.randint(2, 100, (examples, tokens), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, -2:] = 0
    labels = torch.randint(2, 100, (examples, target), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "use_cache": False}


def losses_and_gradients(run: Any, modulator: Modulator, given: dict[str, Any]) -> list[torch.Tensor]:
    modulator.zero_grad(set_to_none=True)
    loss = run(**given).loss
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in modulator.parameters() if p.grad is not None)]


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FieldModulator, LerpModulator])
def test_an_epoch_of_shapes_is_a_few_graphs(kind: Any) -> None:
    """Traced with the hooks in it; `fullgraph` makes a graph break an error. The results are the eager model's."""
    model = small()
    modulator = kind(stream_of(model.config), initial_alpha=0.1)
    handle = attach(model, modulator)
    run = compiled(model, True, backend="eager")
    for shape in SHAPES:
        expected = losses_and_gradients(model, modulator, batch(*shape))
        found = losses_and_gradients(run, modulator, batch(*shape))
        assert len(found) == len(expected) > 1
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    assert 1 <= graphs() <= FEW
    assert not counters["graph_break"]

    given, before = batch(*SHAPES[0]), graphs()
    with torch.no_grad():  # evaluation is not compiled
        assert torch.equal(run(**given).loss, model(**given).loss)
    assert graphs() == before
    with handle.scaled(0.5):  # what was compiled for α does not answer for half of it
        expected = losses_and_gradients(model, modulator, given)
        torch.testing.assert_close(losses_and_gradients(run, modulator, given), expected, rtol=1e-5, atol=1e-7)
    with handle.disabled():  # nothing learns, nor asks for a gradient
        assert torch.equal(run(**given).loss, model(**given).loss)
    expected = losses_and_gradients(model, modulator, given)
    torch.testing.assert_close(losses_and_gradients(run, modulator, given), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.timeout(900)  # compilers are started
@pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode at the start of training")
def test_a_compiled_fit_learns_what_an_eager_one_does(tmp_path: Path) -> None:
    """Code is generated, several steps are taken, and answers are generated between them, by the model itself."""
    small(1).config.save_pretrained(tmp_path)
    shapes = [(4, 16, 2), (4, 9, 2), (3, 17, 2)]
    batches: Any = DataLoader([batch(*shape) for shape in shapes], batch_size=None)  # type: ignore[arg-type]
    ends: list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []
    for how in (False, "reduce-overhead"):
        module = ModulatedT5(SMALL_LERP, backbone=str(tmp_path), lr=0.02, compile=how)
        module.take(small(1))
        fit = trainer(tmp_path)
        fit.fit(module, batches, batches)
        ends.append((module.state_dict(), {name: torch.as_tensor(v) for name, v in fit.callback_metrics.items()}))
    assert 1 <= graphs() <= FEW
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-3, atol=1e-4)
