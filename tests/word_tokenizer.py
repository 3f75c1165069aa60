"""Tokenizers of words: each word of a WordNet's lemmas and definitions is one token."""

from collections.abc import Mapping

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from datamodules import WordNetDataModule
from modulant.corpus.forms import QUESTION


def save_word_tokenizer(folder: str, nltk_data: str, special: Mapping[str, str], template: str = "$A") -> int:
    """Save one for the words of a WordNet.

    Args:
        folder: where to.
        nltk_data: the WordNet's.
        special: special tokens by their names (``pad_token``); their ids are 0, 1, …
        template: around a text, such as ``[CLS] $A [SEP]``.

    Returns:
        The size of its vocabulary.
    """
    data = WordNetDataModule(nltk_data=nltk_data)
    data.setup()
    texts = [*data.entries.lemmas, *data.entries.definitions, QUESTION]
    split = Whitespace()
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
    ids = {word: i for i, word in enumerate([*special.values(), *words])}
    inner = Tokenizer(WordLevel(ids, special["unk_token"]))
    inner.pre_tokenizer = split
    inner.post_processor = TemplateProcessing(
        single=template, special_tokens=[(token, ids[token]) for token in special.values()]
    )
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)
    return len(ids)
