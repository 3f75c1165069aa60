"""An artefact attached to a model that is loaded already; a SentenceTransformer encodes with it as before."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import PreTrainedTokenizerFast

from modulant.backbones import open_model
from modulant.corpus.forms import SourceForm
from modulators import (
    FieldModulator,
    LerpModulator,
    Modulator,
    attach,
    attach_pretrained,
    load_modulated,
    mean_embedding,
    save_modulator,
    stream_of,
)
from tests.tiny_families import MASKED, build

WORDS = ["[PAD]", "[UNK]", *(f"w{i}" for i in range(2, 97))]
TEXTS = [" ".join(f"w{2 + (7 * i + 5 * j) % 95}" for j in range(2 + i)) for i in range(9)]
LAYERS = [0, 2]


def sentences(place: str) -> Any:
    from sentence_transformers import SentenceTransformer  # seconds, which those that run other tests need not wait

    return SentenceTransformer(place, device="cpu")


def backbone(model_type: str, folder: Path) -> str:
    """A tiny one in sentence-transformers' layout, with mean pooling."""
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    build(model_type, head=False).save_pretrained(folder)
    sentences(str(folder)).save(str(folder / "sentences"))
    return str(folder / "sentences")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return backbone("bert", tmp_path_factory.mktemp("backbone"))


def changed(modulator: Modulator) -> Modulator:
    """No longer as it starts."""
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in modulator.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return modulator


def artefact(folder: Path, backbone: str, kind: Any = FieldModulator, **more: Any) -> Path:
    modulator = changed(kind(stream_of(build("bert", head=False).config)))
    save_modulator(modulator, folder / "modulator", backbone, LAYERS, **{"family": "bert"} | more)
    return folder


def own(model: Any, tokenizer: Any) -> np.ndarray:
    """The means of a model's last hidden state, without sentence-transformers."""
    embed = mean_embedding(
        lambda ids, mask: model(input_ids=ids, attention_mask=mask).last_hidden_state, tokenizer, form=SourceForm("")
    )
    return embed(TEXTS).numpy()


@pytest.mark.parametrize("kind", [FieldModulator, LerpModulator])
def test_encode_is_the_mean_of_the_modulated_encoder(kind: Any, bert: str, tmp_path: Path) -> None:
    model = sentences(bert)
    base, names = model.encode(TEXTS, batch_size=4), set(model.state_dict())
    run = artefact(tmp_path, bert, kind)
    handle = attach_pretrained(model, run)
    modulated = model.encode(TEXTS, batch_size=4, normalize_embeddings=False)
    np.testing.assert_allclose(modulated, own(*load_modulated(run)), rtol=0, atol=1e-5)
    assert np.abs(modulated - base).max() > 1e-3
    assert handle.layers == LAYERS
    with handle.disabled():
        np.testing.assert_array_equal(model.encode(TEXTS, batch_size=4), base)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).encode(TEXTS, batch_size=4), modulated)
    assert set(model.state_dict()) == names
    assert not any(parameter.requires_grad for parameter in handle.modulator.parameters())
    handle.remove()
    np.testing.assert_array_equal(model.encode(TEXTS, batch_size=4), base)


@pytest.mark.parametrize("model_type", [*MASKED, "t5", "qwen3"])
def test_token_ids_arrive_in_every_family(model_type: str, tmp_path: Path) -> None:
    """sentence-transformers calls the forward of a model past its hooks."""
    folder = backbone(model_type, tmp_path)
    model, opened = sentences(folder), open_model(folder)
    modulator = changed(LerpModulator(opened.stream))
    handle = attach(model, modulator)
    attach(opened.model, modulator)
    found = model.encode(TEXTS, batch_size=4)
    np.testing.assert_allclose(found, own(opened.parts.stack, opened.tokenizer), rtol=0, atol=1e-5)
    with handle.observed() as seen:
        model.encode(TEXTS[:1])
    assert seen
    assert not handle._passes


def test_saving_writes_the_base(bert: str, tmp_path: Path) -> None:
    model = sentences(bert)
    base = model.encode(TEXTS)
    attach_pretrained(model, artefact(tmp_path, bert))
    model.save(str(tmp_path / "saved"))
    np.testing.assert_array_equal(sentences(str(tmp_path / "saved")).encode(TEXTS), base)


@pytest.mark.slow
def test_worker_processes_encode_with_it(bert: str, tmp_path: Path) -> None:
    model = sentences(bert)
    handle = attach_pretrained(model, artefact(tmp_path, bert, LerpModulator))
    expected = model.encode(TEXTS, batch_size=4)
    with handle.disabled():  # in this process alone
        found = model.encode(TEXTS, batch_size=4, device=["cpu", "cpu"], chunk_size=5)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_models_that_are_not_the_artefacts(bert: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    run = artefact(tmp_path, bert)
    static = SentenceTransformer(modules=[StaticEmbedding(Tokenizer(WordLevel({"w": 0})), embedding_dim=8)])
    several: Any = nn.ModuleList([build("bert", head=False), build("bert", head=False)])
    several.config = several[0].config
    for other, message in (
        (static, r"^attach_pretrained: a SentenceTransformer has no config; a model of transformers is needed$"),
        (several, r"^attach_pretrained: a ModuleList has 2 modules that are a BertModel .* it must have one$"),
        (build("roberta"), r"trained for a bert; 'RobertaForMaskedLM' is a roberta$"),
        (build("bert", num_hidden_layers=2), r"trained for a backbone of .*'BertForMaskedLM' has .*'n_layers': 2"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            attach_pretrained(other, run)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"trained for a t5; 'BertForMaskedLM' is a bert$"):
        attach_pretrained(build("bert"), artefact(tmp_path / "t5", bert, family=None))


def test_other_weights(bert: str, tmp_path: Path) -> None:
    run, folder = artefact(tmp_path, bert), str(tmp_path / "other")
    model = sentences(bert)
    with torch.no_grad():
        model[0].auto_model.embeddings.word_embeddings.weight[5, 5] += 1
    model.save(folder)
    other = sentences(folder)
    base = other.encode(TEXTS)
    with pytest.raises(ValueError, match=r"'.*other' has other weights than '.*sentences', which the modulator was"):
        attach_pretrained(other, run)
    np.testing.assert_array_equal(other.encode(TEXTS), base)
    with pytest.warns(UserWarning, match="it is not known whether this model has the weights that the modulator was"):
        attach_pretrained(build("bert"), run)
    shutil.rmtree(folder)
    with pytest.warns(UserWarning, match="it is not known whether '.*other' has the weights"):
        attach_pretrained(other, run)


def test_weights_of_a_hub(bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of a hub id is compared by its files in the cache, or by the revision; nothing is fetched."""
    cache = tmp_path / "cache" / "models--me--bert"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(bert, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    model = build("bert")
    model.config.name_or_path = "me/bert"
    attach_pretrained(model, artefact(tmp_path / "by_digest", bert)).remove()
    pinned = artefact(tmp_path / "by_revision", "me/bert", backbone_revision=commit)
    attach_pretrained(model, pinned).remove()
    (cache / "refs" / "main").write_text("f" * 40)
    with pytest.warns(UserWarning, match="it is not known whether 'me/bert' has the weights"):
        attach_pretrained(model, pinned)
