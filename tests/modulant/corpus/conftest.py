"""The same small WordNet and tokenizer as for DataModules."""

from tests.datamodules.conftest import lexicon, small_wordnet, tiny_backbone, tokenizer

__all__ = ["lexicon", "small_wordnet", "tiny_backbone", "tokenizer"]
