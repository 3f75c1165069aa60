"""Data, as Lightning's DataModules: WordNet's definition → lemma pairs, and the glosses that `mini` was trained on."""

from datamodules.glosses import GlossDataModule
from datamodules.wordnet import WordNetDataModule

__all__ = ["GlossDataModule", "WordNetDataModule"]
