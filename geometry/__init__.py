"""Pure functions of tensors: simplices, the pentachora of a cloud, correlation. Torch only; imports nothing of ours."""

from geometry.correlation import cosine_preservation, pearson_from_classes, spearman_from_histograms
from geometry.pentachora import gaussian_null_cv, pentachoron_cv, pentachoron_draws, pentachoron_volumes
from geometry.simplices import regular_simplex, simplex_volume, squared_edge_lengths, squared_simplex_volume

__all__ = [
    "cosine_preservation",
    "gaussian_null_cv",
    "pearson_from_classes",
    "pentachoron_cv",
    "pentachoron_draws",
    "pentachoron_volumes",
    "regular_simplex",
    "simplex_volume",
    "spearman_from_histograms",
    "squared_edge_lengths",
    "squared_simplex_volume",
]
