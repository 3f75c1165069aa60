"""WordNet as arrays: entries, definitions, and the taxonomy. The only package that imports nltk."""

from modulant.lexicon.archive import LexiconError
from modulant.lexicon.entries import Entries, kept_entries, matched_pairs
from modulant.lexicon.lexicon import Lexicon
from modulant.lexicon.taxonomy import Taxonomy

__all__ = ["Entries", "Lexicon", "LexiconError", "Taxonomy", "kept_entries", "matched_pairs"]
