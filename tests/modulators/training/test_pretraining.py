"""The module that made `mini`: its loss is T5's own, and what it leaves behind loads as a backbone."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from modulant.backbones.families import stream_of
from modulant.backbones.t5 import encode, load_backbone, load_config
from modulant.backbones.tokenizers import load_tokenizer
from modulators import PretrainT5, ResidualStream
from modulators.training.pretraining import export

SIZES = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_heads": 2, "num_layers": 3, "num_decoder_layers": 1}


def built(feed_forward: Any = "relu", seed: int = 42) -> PretrainT5:
    module = PretrainT5(**SIZES, feed_forward=feed_forward, seed=seed)
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(tokenizer=load_tokenizer("mini")))
    module.configure_model()
    return module


@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
def test_the_loss_is_t5s_own(feed_forward: str, tokens: dict[str, Tensor]) -> None:
    module = built(feed_forward)
    loss, count = module._loss(tokens)
    assert int(count) == 12
    # Scores at real targets alone, and a mean over these: transformers scores all of them.
    assert loss.item() == pytest.approx(module.model(**tokens).loss.item(), rel=1e-5)


def test_seeded_without_the_global_generator() -> None:
    state = torch.get_rng_state()
    one, same, other = built(), built(), built(seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    weight = one.model.shared.weight
    assert torch.equal(weight, same.model.shared.weight)
    assert not torch.equal(weight, other.model.shared.weight)


@pytest.mark.parametrize("feed_forward", ["relu", "gated-gelu"])
def test_what_it_leaves_is_a_backbone(feed_forward: str, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    module = built(feed_forward).eval()
    export(module.model, load_tokenizer("mini"), tmp_path / "backbone")
    folder = str(tmp_path / "backbone")
    assert stream_of(load_config(folder)) == module.stream == ResidualStream(16, 3, len(load_tokenizer(folder)))
    model, ids, mask = load_backbone(folder), tokens["input_ids"], tokens["attention_mask"]
    torch.testing.assert_close(encode(model, ids, mask), module.encode(ids, mask), rtol=0, atol=0.02)  # stored in fp16
    assert model(**tokens).loss.item() == pytest.approx(module._loss(tokens)[0].item(), rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"d_model": 0}, "d_model is 0"), ({"warmup_steps": 0}, "warmup_steps"), ({"lr": 0.0}, "lr is")],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainT5(**arguments)
