from .alpha import AlphaWindow
from .answers import AnswerQuality
from .bootstrap import bootstrap_pearson, bootstrap_steps, percentile_interval
from .hierarchy import category_clustering, chain_decay
from .pentachoron import PentachoronCV
from .relational import BANDS, POPULATIONS, RelationalAlignment, lifts, preservation
from .representations import EntryRepresentations

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
