"""Data, as Lightning's DataModules: WordNet's definition → lemma pairs, and the glosses that `mini` was trained on.

Names are imported when they are first used: what arguments may be is known without torch and lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.glosses import GlossDataModule
    from datamodules.wordnet import WordNetDataModule

_HOMES = {
    "GlossDataModule": "glosses",
    "WordNetDataModule": "wordnet",
}

__all__ = [
    "GlossDataModule",
    "WordNetDataModule",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'datamodules' has no attribute '{name}'")
    return getattr(import_module(f"datamodules.{_HOMES[name]}"), name)
