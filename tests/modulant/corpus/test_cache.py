"""The tokenised WordNet on disk: the same corpus, once for each tokenizer and setting, and never a wrong one."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modulant.corpus import cache as corpus_cache
from modulant.corpus.entries import Corpus
from modulant.corpus.ragged import Ragged
from modulant.lexicon import Lexicon


@pytest.fixture
def small(small_wordnet: str) -> Lexicon:
    return Lexicon.load(small_wordnet)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Lexicon) -> Path:
    monkeypatch.setenv("MODULANT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build(lexicon: Lexicon, tokenizer: Any, matching: Any = "single_token") -> Corpus:
    return Corpus.build(lexicon, tokenizer, 0.1, 42, matching)


def columns(corpus: Corpus) -> list[np.ndarray[Any, Any]]:
    ragged: tuple[Ragged, ...] = (corpus.sources, corpus.targets)
    return [corpus.entries.lemma, corpus.entries.synset, corpus.entries.token, corpus.held_out,
            *(array for r in ragged for array in (r.tokens, r.starts))]  # fmt: skip


def same(one: Corpus, other: Corpus) -> bool:
    pairs = list(zip(columns(one), columns(other), strict=True))
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("matching", ["single_token", "all"])
def test_it_is_the_same_corpus(
    cache: Path, small: Lexicon, tokenizer: Any, matching: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = build(small, tokenizer, matching)
    assert len(list(cache.glob("corpus-*.npz"))) == 1
    tokenizer(["left behind by another use"], truncation=True, max_length=3)
    monkeypatch.setattr("modulant.corpus.forms.encode_batch", None)  # nothing is tokenised now
    assert same(build(small, tokenizer, matching), fresh)


def test_another_tokenizer_setting_or_wordnet_has_a_file_of_its_own(
    cache: Path, small: Lexicon, lexicon: Lexicon, tokenizer: Any
) -> None:
    from tokenizers import AddedToken
    from transformers import AutoTokenizer

    other = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    other.add_tokens([AddedToken("zebra crossing")])
    files = {
        corpus_cache.file_for(small, tokenizer, ("all",)),
        corpus_cache.file_for(small, tokenizer, ("single_token",)),
        corpus_cache.file_for(small, other, ("all",)),
        corpus_cache.file_for(lexicon, tokenizer, ("all",)),
    }
    assert len(files) == 4


def test_a_damaged_file_is_made_again(cache: Path, small: Lexicon, tokenizer: Any) -> None:
    fresh = build(small, tokenizer)
    (file,) = cache.glob("corpus-*.npz")
    whole = file.read_bytes()
    for damaged in (b"", whole[:-40], whole[: len(whole) // 2] + b"\x55" + whole[len(whole) // 2 + 1 :]):
        file.write_bytes(damaged)
        assert same(build(small, tokenizer), fresh)
        assert file.read_bytes() == whole


def test_where_nothing_can_be_written_it_goes_on(
    cache: Path, small: Lexicon, tokenizer: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("a file")  # a mode would not stop root
    monkeypatch.setenv("MODULANT_CACHE", os.fspath(cache / "folder"))
    assert len(build(small, tokenizer).entries) > 2
    assert "the tokenised texts cannot be cached (Not a directory); going on without" in capsys.readouterr().err


def test_a_tokenizer_that_cannot_be_described_has_none(small: Lexicon) -> None:
    assert corpus_cache.file_for(small, object(), ()) is None
