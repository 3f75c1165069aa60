from .glosses import GlossDataModule
from .text.module import TextDataModule
from .wordnet import WordNetDataModule

__all__ = [
    "GlossDataModule",
    "TextDataModule",
    "WordNetDataModule",
]
