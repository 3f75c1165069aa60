"""Tokenizers of text: nothing is lost, what is saved is what is loaded, ranks are those of the counts."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers
from transformers import AutoTokenizer

from datamodules.text.tokenizer import TextTokenizer
from modulant.assets import MINI

BYTES = TextTokenizer.of_bytes()


@pytest.fixture(scope="module")
def bpe(texts: list[str]) -> TextTokenizer:
    return TextTokenizer.train(texts, 320)


ANY_TEXT = st.text(max_size=60)


@given(text=ANY_TEXT | ANY_TEXT.map(lambda text: f"{text}<|endoftext|>{text}"))
def test_nothing_is_lost(bpe: TextTokenizer, text: str) -> None:
    for tokenizer in (BYTES, bpe):
        ids = tokenizer.encode(text)
        assert tokenizer.decode_bytes(ids) == text.encode()
        assert tokenizer.decode(ids) == text
        assert tokenizer.byte_lengths[ids].sum() == len(text.encode())
        assert tokenizer.end not in ids


@given(text=ANY_TEXT)
def test_bytes_are_the_ids(text: str) -> None:
    assert BYTES.encode(text).tolist() == list(text.encode())
    assert BYTES.backend.encode(text, add_special_tokens=False).ids == list(text.encode())
    assert (BYTES.vocab_size, BYTES.end) == (257, 256)


def test_bpe_is_smaller_and_its_mark_is_last(bpe: TextTokenizer, texts: list[str]) -> None:
    assert bpe.vocab_size == 320
    assert bpe.end == 319
    assert sum(map(len, bpe.encode_all(texts))) < 0.5 * sum(len(text.encode()) for text in texts)
    again = TextTokenizer.train(reversed(texts), 320)
    assert again.sha256 == bpe.sha256, "merges follow from counts, not from the order"
    assert TextTokenizer.train(["ab"], 320).vocab_size == 258, "there is nothing more to merge"


def test_what_is_saved_is_what_is_loaded(bpe: TextTokenizer, texts: list[str], tmp_path: Path) -> None:
    for tokenizer in (bpe, BYTES):
        counts = np.arange(tokenizer.vocab_size) % 7
        tokenizer.with_counts(counts).save(tmp_path)
        loaded = TextTokenizer.load(tmp_path)
        assert (loaded.sha256, loaded.end) == (tokenizer.sha256, tokenizer.end)
        np.testing.assert_array_equal(loaded.counts, counts)
        by_transformers = AutoTokenizer.from_pretrained(tmp_path)
        assert by_transformers.eos_token_id == tokenizer.end
        for text in (*texts[:50], "  two  spaces\n\n<|endoftext|>\tZoë"):
            ids = tokenizer.encode(text).tolist()
            assert loaded.encode(text).tolist() == ids
            assert by_transformers(text, add_special_tokens=False).input_ids == ids
            assert by_transformers.decode(ids) == text


def test_ranks_and_frequencies(bpe: TextTokenizer) -> None:
    counts = np.zeros(bpe.vocab_size, dtype=np.int64)
    counts[[5, 9, 2]] = 4, 7, 4
    counted = bpe.with_counts(counts)
    assert counted.ranks[[9, 2, 5, 0, 1, 3, 319]].tolist() == [0, 1, 2, 3, 4, 5, 319]
    assert sorted(counted.ranks) == list(range(320))
    assert counted.frequencies[9] == pytest.approx(7.5 / (15 + 160))
    assert counted.frequencies.sum() == pytest.approx(1)


def test_counts_of_another_tokenizer(bpe: TextTokenizer, tmp_path: Path) -> None:
    bpe.with_counts(np.zeros(320, dtype=np.int64)).save(tmp_path)
    TextTokenizer.train(["other"], 300).save(tmp_path)
    with pytest.raises(ValueError, match=r"counts.json counts the tokens of another tokenizer than tokenizer.json"):
        TextTokenizer.load(tmp_path)
    (tmp_path / "counts.json").write_text("{")
    with pytest.raises(ValueError, match=r"counts.json is damaged \("):
        TextTokenizer.load(tmp_path)


def test_pretrained_ones_that_do_not_do(bpe: TextTokenizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^data.tokenizer: .*mini.*: it is no byte-level tokenizer"):
        TextTokenizer.pretrained(str(MINI))
    with pytest.raises(ValueError, match=r"^data.tokenizer: .* has no readable tokenizer"):
        TextTokenizer.pretrained(str(tmp_path))
    bpe.save(tmp_path)
    whole = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<end>"}}))
    with pytest.raises(ValueError, match=r"none of its tokens ends a text; tokenizer_config.json names one"):
        TextTokenizer.pretrained(str(tmp_path))
    (tmp_path / "tokenizer_config.json").unlink()
    assert TextTokenizer.pretrained(str(tmp_path)).end == bpe.end, "by its usual name"
    (tmp_path / "tokenizer.json").write_text(whole[:100])
    with pytest.raises(ValueError, match=r"tokenizer.json cannot be read \("):
        TextTokenizer.pretrained(str(tmp_path))


def test_one_that_normalises_loses_bytes(bpe: TextTokenizer, tmp_path: Path) -> None:
    bpe.save(tmp_path)
    other = TextTokenizer.pretrained(str(tmp_path))
    other.backend.normalizer = normalizers.NFC()
    text = unicodedata.normalize("NFD", "naïve")
    assert other.byte_lengths[other.encode(text)].sum() == len(text.encode()) - 1
