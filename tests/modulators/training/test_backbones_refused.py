"""Backbones of other families that cannot be trained on: one line that names the key, early where that can be known."""

import json
from pathlib import Path
from typing import Any

import pytest

from datamodules import WordNetDataModule
from modulators import FieldModulator, ModulatedCausalLM, ModulatedEncoder
from tests.runs import small_wordnet
from tests.tiny_families import build
from tests.word_tokenizer import save_word_tokenizer

NAMES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]", "eos_token": "[EOS]"}
FIELD: Any = FieldModulator


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_wordnet(tmp_path_factory.mktemp("nltk_data")))


def saved(folder: Path, wordnet: str, model_type: str, special: dict[str, str] = NAMES, **more: Any) -> str:
    n_words = save_word_tokenizer(str(folder), wordnet, special)
    build(model_type, vocab_size=n_words, **more).save_pretrained(folder)
    return str(folder)


def edited(folder: str, **changes: Any) -> str:
    file = Path(folder) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("kind", "model_type", "changes", "said"),
    [
        (ModulatedEncoder, "bert", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "is quantised .gptq"),
        (ModulatedCausalLM, "gpt2", {"model_type": "opt"}, "'opt' is no known family of transformers; known are t5"),
        (ModulatedEncoder, "gpt2", {}, "is a gpt2; it must be an encoder of text"),
        (ModulatedCausalLM, "bert", {}, "is a bert; it must be a causal language model"),
        (ModulatedCausalLM, "t5", {}, "is a t5; it must be a causal language model"),
    ],
)
def test_by_its_configuration(
    kind: Any, model_type: str, changes: dict[str, Any], said: str, wordnet: str, tmp_path: Path
) -> None:
    folder = edited(saved(tmp_path, wordnet, model_type), **changes)
    with pytest.raises(ValueError, match=rf"^model\.backbone: .*{said}"):
        kind(FIELD, folder)


@pytest.mark.parametrize(
    ("kind", "model_type", "changes", "said"),
    [
        (ModulatedEncoder, "bert", {"num_hidden_layers": 5}, "lacks 32 tensors of its weights"),
        (ModulatedCausalLM, "llama", {"num_hidden_layers": 2}, "has no place for 9 tensors of its weights"),
    ],
)
def test_by_its_weights(
    kind: Any, model_type: str, changes: dict[str, Any], said: str, wordnet: str, tmp_path: Path
) -> None:
    module = kind(FIELD, edited(saved(tmp_path, wordnet, model_type), **changes))
    with pytest.raises(ValueError, match=rf"^model\.backbone: .*{said}"):
        module.configure_model()


@pytest.mark.parametrize(("kind", "model_type"), [(ModulatedEncoder, "bert"), (ModulatedCausalLM, "gpt2")])
def test_layers_that_it_lacks(kind: Any, model_type: str, wordnet: str, tmp_path: Path) -> None:
    side = "encoder" if model_type == "bert" else "decoder"
    with pytest.raises(ValueError, match=rf"^model\.layers: layer 3 does not exist; the {side} has 3 layers, 0 … 2"):
        kind(FIELD, saved(tmp_path, wordnet, model_type), layers=[0, 3])


def test_neither_pad_nor_end_token(wordnet: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, wordnet, "gpt2", {"unk_token": "[UNK]"})
    with pytest.raises(ValueError, match=r"^model\.backbone: the tokenizer of .* has no pad token and no end token"):
        _ = WordNetDataModule(folder, nltk_data=wordnet).tokenizer


def test_too_few_positions_for_a_question(wordnet: str, tmp_path: Path) -> None:
    """And with a few more, definitions are cut to what is left of them."""
    folder = saved(tmp_path / "short", wordnet, "gpt2", n_positions=20)
    with pytest.raises(ValueError, match=r"^model\.backbone: a gpt2 with 20 positions is too short for this task"):
        WordNetDataModule(folder, nltk_data=wordnet).setup()
    data = WordNetDataModule(saved(tmp_path / "longer", wordnet, "gpt2", n_positions=24), nltk_data=wordnet)
    data.setup()
    asked = len(data.form.asked(data.tokenizer))
    assert data.corpus.sources.lengths.max() == data.form.longest == 24 - 16 - asked
