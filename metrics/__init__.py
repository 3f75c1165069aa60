"""State around the maths: torchmetrics that accumulate, sync and compute. Every distributed state reduces by sum."""

from metrics.alpha import AlphaWindow
from metrics.answers import AnswerQuality
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
    "preservation",
]
