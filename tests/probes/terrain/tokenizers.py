"""A tokenizer whose tokens are the words of the lists, but for one month."""

from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from probes.terrain.words import CATEGORIES, ORDERED

_LISTS = " ".join([*ORDERED.values(), *CATEGORIES.values()]).split()
WORDS = ["[PAD]", "[EOS]", "[UNK]", *dict.fromkeys(word for word in _LISTS if word != "December")]


def masking_tokenizer() -> Any:
    """The same with [CLS] and [SEP] around a text, as a BERT has them, a full stop and a mask."""
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"})
    tokenizer.add_tokens(["."])
    around = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=around)
    return tokenizer


def word_tokenizer() -> Any:
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    inner.pre_tokenizer = Whitespace()
    special = {"pad_token": "[PAD]", "eos_token": "[EOS]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)
