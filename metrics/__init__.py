"""State around the maths: torchmetrics that accumulate, sync and compute, and measures of a whole population.

Every distributed state reduces by sum.
"""

from metrics.alpha import AlphaWindow
from metrics.answers import AnswerQuality
from metrics.bootstrap import bootstrap_pearson, bootstrap_steps, percentile_interval
from metrics.hierarchy import category_clustering, chain_decay
from metrics.pentachoron import PentachoronCV
from metrics.relational import BANDS, POPULATIONS, RelationalAlignment, preservation
from metrics.representations import EntryRepresentations

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
    "percentile_interval",
    "preservation",
]
