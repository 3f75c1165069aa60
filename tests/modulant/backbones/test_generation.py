"""Greedy answers depend on the weights alone: not on generation_config.json, and not on old keys of config.json."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from modulant.backbones.t5 import load_t5
from modulators import FieldModulator, ModulatedT5
from modulators.arguments import GenerationSettings
from modulators.comparison.generation import compare

# each of these changes what generate() does, or makes it fail
SETTINGS: dict[str, Any] = {
    "min_length": 30,
    "min_new_tokens": 4,
    "max_new_tokens": 1,
    "max_time": 1e-9,
    "num_beams": 4,
    "num_return_sequences": 3,
    "do_sample": True,
    "no_repeat_ngram_size": 1,
    "encoder_no_repeat_ngram_size": 1,
    "repetition_penalty": 50.0,
    "encoder_repetition_penalty": 50.0,
    "bad_words_ids": [[i] for i in range(2, 15_000)],
    "suppress_tokens": list(range(2, 15_000)),
    "begin_suppress_tokens": list(range(2, 15_000)),
    "sequence_bias": [[[7], 1e4]],
    "forced_bos_token_id": 9,
    "forced_eos_token_id": 9,
    "exponential_decay_length_penalty": [1, 1e9],
    "guidance_scale": 9.0,
    "output_scores": True,
    "output_attentions": True,
    "return_dict_in_generate": True,
    "decoder_start_token_id": 11,
    "eos_token_id": list(range(2, 15_000)),
    "pad_token_id": 12,
    "stop_strings": ["a"],
    "prompt_lookup_num_tokens": 3,
    "cache_implementation": "static",
    "use_cache": False,
    "return_dict": False,
    "output_hidden_states": True,
    "watermarking_config": {"bias": 1e4},
}
# The ids in config.json are those that the model was trained with, also by teacher forcing.
OLD = {key: value for key, value in SETTINGS.items() if not key.endswith("token_id") or key.startswith("forced")}


def answers(folder: str, tokens: dict[str, Tensor]) -> tuple[Tensor, Any]:
    model, tokenizer = load_t5(folder)
    module = ModulatedT5(FieldModulator, backbone=folder)
    module.take(model)
    inputs = {key: tokens[key] for key in ("input_ids", "attention_mask")}
    compared = compare(model, tokenizer, module.handle, "abcd", inputs, GenerationSettings(max_new_tokens=5))
    return module._answer(tokens, 5), compared


@pytest.fixture(scope="module")
def expected(backbones: dict[str, str], tokens: dict[str, Tensor]) -> Any:
    torch.manual_seed(0)
    return answers(backbones["v1_0"], tokens)


GROUPS = [
    ("min_length", "no_repeat_ngram_size", "num_beams"),
    ("num_return_sequences",),  # transformers refuses it with greedy decoding
    ("suppress_tokens", "forced_bos_token_id", "do_sample", "max_time"),
    ("decoder_start_token_id", "eos_token_id", "pad_token_id"),
    ("use_cache", "return_dict", "output_attentions"),
]


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize(
    "keys", [*map(list, GROUPS), *(pytest.param([key], marks=pytest.mark.slow, id=key) for key in SETTINGS)]
)
@pytest.mark.filterwarnings("ignore")  # transformers' advice about these settings
def test_no_setting_of_the_folder_reaches_an_answer(
    file: str, keys: list[str], expected: Any, backbone: str, tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    given = {key: (SETTINGS if file == "generation_config.json" else OLD).get(key) for key in keys}
    given = {key: value for key, value in given.items() if value is not None}
    folder = shutil.copytree(backbone, tmp_path / "backbone")
    config = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(config | given))
    torch.manual_seed(0)
    tokens_found, compared = answers(str(folder), tokens)
    assert torch.equal(tokens_found, expected[0])
    assert compared == expected[1]


def test_a_model_is_left_as_it_was(backbone: str, tokens: dict[str, Tensor]) -> None:
    model, _ = load_t5(backbone)
    model.generation_config.min_length = 7
    module = ModulatedT5(FieldModulator, backbone=backbone)
    module.take(model)
    module._answer(tokens, 5)
    assert model.generation_config.min_length == 7, "a library user's generate() follows the folder, as everywhere"
