"""A tokenizer whose tokens are the words of the lists, but for one month."""

from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from probes.terrain.words import CATEGORIES, ORDERED

_LISTS = " ".join([*ORDERED.values(), *CATEGORIES.values()]).split()
WORDS = ["[PAD]", "[EOS]", "[UNK]", *dict.fromkeys(word for word in _LISTS if word != "December")]


def word_tokenizer() -> Any:
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    inner.pre_tokenizer = Whitespace()
    special = {"pad_token": "[PAD]", "eos_token": "[EOS]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)
