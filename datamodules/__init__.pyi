from .glosses import GlossDataModule
from .wordnet import WordNetDataModule

__all__ = [
    "GlossDataModule",
    "WordNetDataModule",
]
