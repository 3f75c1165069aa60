from .alpha import AlphaWindow
from .answers import AnswerQuality
from .functional.alignment import BANDS, lifts, preservation
from .functional.bootstrap import (
    bootstrap_columns,
    bootstrap_pearson,
    bootstrap_steps,
    interval_figures,
    lift_intervals,
)
from .functional.hierarchy import category_clustering, chain_decay
from .functional.intervals import percentile_interval
from .functional.pairs import POPULATIONS, STRATA
from .pentachoron import PentachoronCV
from .relational import RelationalAlignment
from .representations import EntryRepresentations

__all__ = [
    "BANDS",
    "POPULATIONS",
    "STRATA",
    "AlphaWindow",
    "AnswerQuality",
    "EntryRepresentations",
    "PentachoronCV",
    "RelationalAlignment",
    "bootstrap_columns",
    "bootstrap_pearson",
    "bootstrap_steps",
    "category_clustering",
    "chain_decay",
    "interval_figures",
    "lift_intervals",
    "lifts",
    "percentile_interval",
    "preservation",
]
