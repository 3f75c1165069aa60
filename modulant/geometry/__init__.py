"""Pure functions of tensors: simplices, pentachora, correlation, spectra, Procrustes. Torch only, nothing of ours."""

from modulant.geometry.bilinear import (
    Form,
    bilinear_form,
    singular_figures,
    stream_gram,
    symmetric_figures,
    trace_cosine,
)
from modulant.geometry.correlation import (
    masked_mean,
    mean_cosine,
    pearson_from_classes,
    pearson_from_sums,
    spearman_from_histograms,
    weighted_pearson,
)
from modulant.geometry.effective_rank import (
    SMALLEST,
    effective_ranks,
    gaussian_ranks,
    participation,
    singular_values,
    stable_rank,
)
from modulant.geometry.entries import entry_figures, gaussian_entries
from modulant.geometry.pentachora import (
    BIN_WIDTH,
    BINS,
    coefficient_of_variation,
    gaussian_null_volumes,
    pentachoron_cv,
    pentachoron_draws,
    pentachoron_volumes,
    relative_volume_histogram,
)
from modulant.geometry.procrustes import orthogonal_procrustes, principal_axes
from modulant.geometry.shapes import shape_features
from modulant.geometry.simplices import regular_simplex, simplex_volume, squared_edge_lengths, squared_simplex_volume
from modulant.geometry.spectral import mean_of_nearest, reproduction, spectral_embedding

__all__ = [
    "BINS",
    "BIN_WIDTH",
    "SMALLEST",
    "Form",
    "bilinear_form",
    "coefficient_of_variation",
    "effective_ranks",
    "entry_figures",
    "gaussian_entries",
    "gaussian_null_volumes",
    "gaussian_ranks",
    "masked_mean",
    "mean_cosine",
    "mean_of_nearest",
    "orthogonal_procrustes",
    "participation",
    "pearson_from_classes",
    "pearson_from_sums",
    "pentachoron_cv",
    "pentachoron_draws",
    "pentachoron_volumes",
    "principal_axes",
    "regular_simplex",
    "relative_volume_histogram",
    "reproduction",
    "shape_features",
    "simplex_volume",
    "singular_figures",
    "singular_values",
    "spearman_from_histograms",
    "spectral_embedding",
    "squared_edge_lengths",
    "squared_simplex_volume",
    "stable_rank",
    "stream_gram",
    "symmetric_figures",
    "trace_cosine",
    "weighted_pearson",
]
