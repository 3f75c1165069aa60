"""What attach refuses, and calls that do not come with token ids."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel

from modulators import FieldModulator, LerpModulator, Modulator, ResidualStream, attach

STREAM = ResidualStream(d_model=16, n_layers=2, vocab_size=30)


@pytest.fixture
def model() -> T5EncoderModel:
    torch.manual_seed(0)
    config = T5Config(vocab_size=30, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4)
    return T5EncoderModel(config).requires_grad_(False).eval()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([0, 9], "^layers: layer 9 does not exist; the encoder has 2 layers, 0 … 1$"),
        ([-1], "^layers: layer -1 does not exist; the encoder has 2 layers, 0 … 1$"),
        ([], r"^layers is \[\]; it must name at least one layer, each once$"),
        ([1, 1], r"^layers is \[1, 1\]; it must name at least one layer, each once$"),
        (list(np.arange(3)), "^layers: layer 2 does not exist; the encoder has 2 layers, 0 … 1$"),
        ([0.0], "^layers holds 0.0, a float; a layer must be an integer$"),
        (["0"], "^layers holds '0', a str; a layer must be an integer$"),
        ([True], "^layers holds True, a bool; a layer must be an integer$"),
        ("all", r"^layers is 'all'; it must be a list of layers, such as \[0, 1\]$"),
    ],
)
def test_bad_layers(model: T5EncoderModel, layers: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attach(model, FieldModulator(STREAM), layers=layers)
    assert not model.encoder._forward_pre_hooks  # nothing stays behind


@pytest.mark.parametrize("layers", [list(np.arange(2)), np.arange(2), torch.arange(2), range(2), (1, 0)], ids=str)
def test_integers_of_any_library(model: T5EncoderModel, layers: Any) -> None:
    stream = ResidualStream(*np.array([16, 2, 30]))
    assert stream == STREAM
    assert type(stream.d_model) is int
    handle = attach(model, FieldModulator(stream), layers=layers)
    assert handle.layers == [0, 1]
    assert all(type(layer) is int for layer in handle.layers)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((24, 2, 30), "^FieldModulator was built for width 24, got 16$"),
        ((16, 3, 30), "^FieldModulator was built for layers 3, got 2$"),
        ((16, 2, 31), "^FieldModulator was built for vocabulary 31, got 30$"),
    ],
)
def test_a_modulator_of_other_sizes(model: T5EncoderModel, sizes: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attach(model, FieldModulator(ResidualStream(*sizes)))


def test_a_model_without_an_encoder() -> None:
    with pytest.raises(ValueError, match=r"^attach: a Linear has no config; a model of transformers is needed$"):
        attach(nn.Linear(2, 2), FieldModulator(STREAM))


def test_embeddings_instead_of_ids(model: T5EncoderModel) -> None:
    ids = torch.randint(0, 30, (2, 70))
    embeds = model.get_input_embeddings()(ids)
    with torch.no_grad():
        field = attach(model, FieldModulator(STREAM))
        assert torch.equal(model(inputs_embeds=embeds)[0], model(ids)[0])
        field.remove()
        lerp = attach(model, LerpModulator(STREAM, n_geometric_dims=4))
        with pytest.raises(ValueError, match=r"^LerpModulator needs token_ids: give the encoder input_ids"):
            model(inputs_embeds=embeds)
        with lerp.disabled():
            model(inputs_embeds=embeds)


def test_a_block_called_by_keyword_and_on_its_own(model: T5EncoderModel) -> None:
    modulator = FieldModulator(STREAM)
    hidden = torch.randn(2, 70, 16)
    block = model.encoder.block[0]
    with torch.no_grad():
        expected = block(modulator(hidden, 0))[0]
        attach(model, modulator)
        assert torch.equal(block(hidden_states=hidden)[0], expected)
        assert torch.equal(block(hidden)[0], expected)


def test_two_modulators_on_one_model(model: T5EncoderModel) -> None:
    ids = torch.randint(0, 30, (2, 70))
    with torch.no_grad():
        first = attach(model, LerpModulator(STREAM, n_geometric_dims=4, initial_alpha=0.3))
        one = model(ids)[0]
        second = attach(model, FieldModulator(STREAM, initial_alpha=0.3), layers=[1])
        both = model(ids)[0]
        assert not torch.equal(one, both)
        with second.disabled():
            assert torch.equal(model(ids)[0], one)
        first.remove()
        second.remove()
        first = attach(model, second.modulator, layers=[1])
        assert not torch.equal(model(ids)[0], both)


def test_all_hidden_states_can_still_be_asked_for(model: T5EncoderModel) -> None:
    attach(model, FieldModulator(STREAM))
    with torch.no_grad():
        out = model(torch.randint(0, 30, (2, 70)), output_hidden_states=True)
    assert len(out.hidden_states) == 3


@pytest.mark.parametrize("modulator", [FieldModulator(STREAM), LerpModulator(STREAM, n_geometric_dims=4)])
def test_a_modulator_follows_its_base(model: T5EncoderModel, modulator: Modulator) -> None:
    ids = torch.randint(0, 30, (2, 70))
    names = model.state_dict().keys()
    handle = attach(model, modulator)
    assert model.state_dict().keys() == names
    assert not {id(p) for p in model.parameters()} & {id(p) for p in modulator.parameters()}
    expected = model(ids)[0]
    for dtype in (torch.float64, torch.bfloat16, torch.float32):
        model.to(dtype)
        assert {p.dtype for p in modulator.parameters()} == {dtype}
        out = model(ids)[0]
        assert out.dtype == dtype
        torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.1)
    model.encoder.half()
    assert modulator.alpha_logits.dtype == torch.float16
    model.to("meta")
    assert {p.device.type for p in modulator.parameters()} == {"meta"}
    handle.remove()
    model.to_empty(device="cpu")
    assert modulator.alpha_logits.device.type == "meta", "once removed, it stays where it is"


def test_a_fused_modulator_follows_with_the_one_it_is_made_from(model: T5EncoderModel) -> None:
    handle = attach(model, LerpModulator(STREAM, n_geometric_dims=4))
    handle.fuse()
    model.double()
    assert handle.modulator.table.dtype == torch.float64
    handle.unfuse()
    assert handle.modulator.proj.weight.dtype == torch.float64


_ATTACH_AGAIN = """
import pickle, sys, torch
from modulators import FieldModulator, ResidualStream, attach
model, handle, ids, once = pickle.load(open(sys.argv[1], "rb"))
with torch.no_grad():
    assert torch.equal(model(ids)[0], once)
    second = attach(model, FieldModulator(ResidualStream(16, 2, 30), initial_alpha=0.3))
    both = model(ids)[0]
    assert not torch.equal(both, once)
    with second.disabled():
        assert torch.equal(model(ids)[0], once)
    handle.remove()
    with second.disabled():
        assert not torch.equal(model(ids)[0], once)
    assert not torch.equal(model(ids)[0], both)
"""


def test_a_pickled_model_is_attached_to_in_another_process(model: T5EncoderModel, tmp_path: Path) -> None:
    ids = torch.randint(0, 30, (2, 70))
    handle = attach(model, FieldModulator(STREAM, initial_alpha=0.3))
    with torch.no_grad():
        once = model(ids)[0]
    with handle.disabled(), (tmp_path / "model.pkl").open("wb") as file:
        pickle.dump((model, handle, ids, once), file)
    done = subprocess.run(
        [sys.executable, "-c", _ATTACH_AGAIN, str(tmp_path / "model.pkl")],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_thread_changes_its_own_passes_alone(model: T5EncoderModel) -> None:
    ids = torch.randint(0, 30, (2, 70))
    base = model(ids)[0]
    handle = attach(model, FieldModulator(STREAM, initial_alpha=0.3))
    modulated = model(ids)[0]
    with ThreadPoolExecutor(1) as other:

        def elsewhere() -> Tensor:
            return other.submit(lambda: model(ids)[0]).result()

        with handle.disabled():
            assert torch.equal(elsewhere(), modulated)
            assert torch.equal(model(ids)[0], base)
        with handle.scaled(2.0):
            assert torch.equal(elsewhere(), modulated)
            assert not torch.equal(model(ids)[0], modulated)
        # contexts that overlap, and end in the order in which they began
        theirs = handle.disabled()
        with handle.disabled():
            other.submit(theirs.__enter__).result()
            assert torch.equal(elsewhere(), base)
        assert torch.equal(model(ids)[0], modulated)
        assert torch.equal(elsewhere(), base)
        other.submit(theirs.__exit__, None, None, None).result()
        assert torch.equal(elsewhere(), modulated)
