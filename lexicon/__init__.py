"""WordNet as arrays: entries, definitions, and the taxonomy. The only package that knows nltk."""

from lexicon.archive import LexiconError, cache_folder
from lexicon.entries import Entries, kept_entries, matched_pairs
from lexicon.lexicon import Lexicon
from lexicon.taxonomy import Taxonomy

__all__ = ["Entries", "Lexicon", "LexiconError", "Taxonomy", "cache_folder", "kept_entries", "matched_pairs"]
