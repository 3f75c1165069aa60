"""The same loss from every layout of weights that the hub has, whole and sharded over ranks.

The reference is the model in memory, whose head is applied here: T5 v1.0 scores with its embeddings and a stream scaled
by 1/√d_model, all later ones with a matrix of their own.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.nn import functional as F
from transformers import MT5Config, T5Config, UMT5Config
from transformers.models.auto.modeling_auto import AutoModelForSeq2SeqLM

from modulant.backbones.sharding import load_sharded
from modulant.backbones.t5 import load_backbone, load_config

SIZES = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 18, "num_heads": 4, "num_layers": 2}
TOKENS = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
LATER = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")

# Of each: its configuration, and the names by which its embeddings and its head are stored.
MODELS: dict[str, tuple[Any, tuple[str, ...], tuple[str, ...]]] = {
    "t5": (T5Config(**SIZES, **TOKENS), ("shared.weight",), ()),
    "t5, every name": (T5Config(**SIZES, **TOKENS), ("shared.weight", *ALIASES, "lm_head.weight"), ()),
    "t5 v1.1": (T5Config(**SIZES, **TOKENS, **LATER), ("shared.weight", *ALIASES), ("lm_head.weight",)),
    "mt5": (MT5Config(**SIZES, **TOKENS, **LATER), ("shared.weight",), ("lm_head.weight",)),
    "umt5": (UMT5Config(**SIZES, **TOKENS, **LATER), ("shared.weight",), ("lm_head.weight",)),
    "madlad400": (T5Config(**SIZES, **TOKENS, **LATER), ("decoder.embed_tokens.weight",), ("lm_head.weight",)),
}
FILES = ["safetensors", "safetensors in parts", "pickle", "pickles in parts"]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Of one rank: tests/modulant/backbones/test_sharding.py has two."""
    meet = tmp_path_factory.mktemp("mesh") / "meet"
    distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def write(folder: Path, files: str, config: Any, tied: bool, tensors: dict[str, Tensor]) -> None:
    keys = {key: value for key, value in config.to_dict().items() if key != "scale_decoder_outputs"}
    keys["tie_word_embeddings"] = tied  # transformers 5 writes true whatever it is
    (folder / "config.json").write_text(json.dumps(keys))
    suffix, save = ("bin", torch.save) if "pickle" in files else ("safetensors", save_file)
    stem = "pytorch_model" if "pickle" in files else "model"
    if "in parts" not in files:
        save(tensors, folder / f"{stem}.{suffix}")  # type: ignore[operator]
        return
    names = sorted(tensors)
    parts = {f"{stem}-{i + 1:05d}-of-00003.{suffix}": names[i::3] for i in range(3)}
    for file, held in parts.items():
        save({name: tensors[name] for name in held}, folder / file)  # type: ignore[operator]
    index = {"metadata": {}, "weight_map": {name: file for file, held in parts.items() for name in held}}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("files", FILES)
@pytest.mark.parametrize("name", MODELS)
def test_the_same_loss(name: str, files: str, mesh: Any, tmp_path: Path) -> None:
    config, embeddings, heads = MODELS[name]
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    head = torch.randn(50, 16) if heads else model.shared.weight.detach()
    ids = torch.randint(2, 50, (3, 9))
    mask = torch.ones_like(ids)
    mask[0, 5:] = 0
    labels = torch.randint(2, 50, (3, 4))
    labels[1, 2:] = -100

    entered = torch.cat([torch.zeros(3, 1, dtype=torch.long), labels[:, :-1].clamp(min=0)], dim=1)
    hidden = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    decoded = model.decoder(input_ids=entered, encoder_hidden_states=hidden, encoder_attention_mask=mask)
    scores = (decoded.last_hidden_state * (1 if heads else 16**-0.5)) @ head.T
    expected = F.cross_entropy(scores.flatten(0, 1), labels.flatten())

    every = (*ALIASES, "shared.weight", "lm_head.weight")
    tensors = {key: tensor.detach() for key, tensor in model.state_dict().items() if key not in every}
    tensors |= {key: model.shared.weight.detach().clone() for key in embeddings} | dict.fromkeys(heads, head)
    write(tmp_path, files, config, not heads, tensors)
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    for loaded in (
        load_backbone(str(tmp_path)),
        load_sharded(str(tmp_path), load_config(str(tmp_path)), torch.float32, mesh, torch.device("cpu")),
    ):
        torch.testing.assert_close(loaded(**inputs).loss, expected, rtol=1e-6, atol=0)
