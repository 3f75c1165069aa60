"""Tiny T5s with random weights, each in a folder in the hub's layout, and a batch for them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from modulant.assets import MINI

SIZES: dict[str, Any] = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "dropout_rate": 0.1,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}

VARIANTS: dict[str, dict[str, Any]] = {
    "v1_0": {"feed_forward_proj": "relu"},
    "v1_1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variant → folder. Their vocabulary is that of `mini`'s tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(MINI)
    folders = {}
    for name, variant in VARIANTS.items():
        torch.manual_seed(3)
        folder: Path = tmp_path_factory.mktemp(name)
        sizes = {"vocab_size": len(tokenizer), **SIZES, **variant}
        model = T5ForConditionalGeneration(T5Config(**sizes))
        weights = dict(model.named_parameters())  # the tied matrix once
        if name == "v1_1":  # has a separate output matrix, which transformers would tie on saving
            weights["lm_head.weight"] = torch.randn_like(model.shared.weight)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps({"model_type": "t5", **sizes}))
        tokenizer.save_pretrained(folder)
        folders[name] = str(folder)
    return folders


@pytest.fixture
def backbone(backbones: dict[str, str]) -> str:
    return backbones["v1_0"]


@pytest.fixture(scope="session")
def tokens() -> dict[str, Tensor]:
    """Four sources of up to 70 tokens (the position buckets show from 9 on) with targets of one to five."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(3, 15_000, (4, 70), generator=generator)
    mask = torch.ones_like(ids)
    for row, length in enumerate((70, 51, 12, 30)):
        ids[row, length:], mask[row, length:] = 0, 0
    labels = torch.full((4, 5), -100)
    for row, length in enumerate((2, 5, 3, 2)):
        labels[row, :length] = torch.randint(3, 15_000, (length,), generator=generator)
        labels[row, length - 1] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
