"""State around the maths: torchmetrics that accumulate, sync and compute, and measures of a whole population.

Every distributed state reduces by sum. Names are imported when they are first used: what arguments may be is known
without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metrics.alpha import AlphaWindow
    from metrics.answers import AnswerQuality
    from metrics.bootstrap import bootstrap_pearson, bootstrap_steps, percentile_interval
    from metrics.hierarchy import category_clustering, chain_decay
    from metrics.pentachoron import PentachoronCV
    from metrics.relational import BANDS, POPULATIONS, RelationalAlignment, lifts, preservation
    from metrics.representations import EntryRepresentations

_HOMES = {
    "BANDS": "relational",
    "POPULATIONS": "relational",
    "AlphaWindow": "alpha",
    "AnswerQuality": "answers",
    "EntryRepresentations": "representations",
    "PentachoronCV": "pentachoron",
    "RelationalAlignment": "relational",
    "bootstrap_pearson": "bootstrap",
    "bootstrap_steps": "bootstrap",
    "category_clustering": "hierarchy",
    "chain_decay": "hierarchy",
    "lifts": "relational",
    "percentile_interval": "bootstrap",
    "preservation": "relational",
}

__all__ = [
    "BANDS",
    "POPULATIONS",
    "AlphaWindow",
    "AnswerQuality",
    "EntryRepresentations",
    "PentachoronCV",
    "RelationalAlignment",
    "bootstrap_pearson",
    "bootstrap_steps",
    "category_clustering",
    "chain_decay",
    "lifts",
    "percentile_interval",
    "preservation",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'metrics' has no attribute '{name}'")
    return getattr(import_module(f"metrics.{_HOMES[name]}"), name)
