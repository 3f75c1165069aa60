"""Figures of the untrained model, kept in the user's cache: the next run on the same weights and texts reads them."""

from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import numpy as np

from modulant.storage import content_key, kept

Figures = dict[str, float]


def kept_figures(
    trainer: L.Trainer, module: L.LightningModule, compute: Callable[[], Figures], *settings: object, learned: bool
) -> Figures:
    """Figures by name, from the cache or computed.

    They follow from the module, the DataModule's population and the settings alone. A module or a DataModule that does
    not say what its figures follow from (`content`) is measured anew each time.

    Args:
        compute: the figures.
        settings: what else they follow from.
        learned: of the module with what learns attached, as it stands; else of the frozen model.
    """
    contents = module_content(module, learned), _content(getattr(trainer, "datamodule", None))
    key = None if None in contents else content_key(*contents, learned, *settings)
    found = kept("figures", key, lambda: _arrays(compute()))
    return dict(zip(found["names"].tolist(), found["values"].tolist(), strict=True))


def module_content(module: L.LightningModule, learned: bool) -> object:
    """What the module's figures follow from; None of one that does not say."""
    return _content(module, learned)


def _content(thing: Any, *arguments: object) -> object:
    content = getattr(thing, "content", None)
    return content(*arguments) if callable(content) else None


def _arrays(figures: Mapping[str, float]) -> dict[str, Any]:
    return {"names": np.array(list(figures), dtype=np.str_), "values": np.array(list(figures.values()), np.float64)}
