"""A tokenizer trained here is laid out as T5's."""

from typing import Any

import pytest

from datamodules.unigram import SENTINELS, train_unigram
from modulant.lexicon import Lexicon

SIZE = 900


@pytest.fixture(scope="module")
def trained(lexicon: Lexicon) -> Any:
    return train_unigram(lexicon.definitions[:3000], SIZE)


def test_layout(trained: Any) -> None:
    assert len(trained) == SIZE
    assert trained.convert_ids_to_tokens([0, 1, 2]) == ["<pad>", "</s>", "<unk>"]
    assert (trained.pad_token_id, trained.eos_token_id, trained.unk_token_id) == (0, 1, 2)
    sentinels = [trained.convert_tokens_to_ids(f"<extra_id_{i}>") for i in range(SENTINELS)]
    assert sentinels == list(range(SIZE - 1, SIZE - 1 - SENTINELS, -1))


def test_round_trip(trained: Any, lexicon: Lexicon) -> None:
    text = lexicon.definitions[0]
    ids = trained(text).input_ids
    assert ids[-1] == trained.eos_token_id
    assert trained.decode(ids, skip_special_tokens=True) == text
    assert trained("<extra_id_0> of", add_special_tokens=False).input_ids[0] == SIZE - 1


def test_the_same_texts_give_nearly_the_same_pieces(trained: Any, lexicon: Lexicon) -> None:
    again = train_unigram(lexicon.definitions[:3000], SIZE)
    assert len(again.get_vocab().keys() ^ trained.get_vocab().keys()) <= 0.02 * SIZE


def test_no_room() -> None:
    with pytest.raises(ValueError, match="vocab_size must be at least 104, got 103"):
        train_unigram(["a text"], 103)
