"""Pure functions of tensors: simplices, pentachora, spectra, moments, correlation, Procrustes. Torch only."""

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
from modulant.geometry.dimensions import (
    covariance,
    dimensions_for,
    eigenvalues_of,
    entropy_rank,
    gaussian_like,
    gaussian_spectrum,
    participation_ratio,
    unbiased_participation_ratio,
)
from modulant.geometry.effective_rank import (
    SMALLEST,
    effective_ranks,
    gaussian_ranks,
    singular_values,
    stable_rank,
)
from modulant.geometry.entries import entry_figures, gaussian_entries
from modulant.geometry.moments import (
    GroupedCosines,
    Moments,
    cosine_moments,
    density_ratios,
    grouped_cosines,
    squared_distance_moments,
)
from modulant.geometry.pentachora import (
    BIN_WIDTH,
    BINS,
    coefficient_of_variation,
    gaussian_null_volumes,
    isotropic_volumes,
    pentachoron_cv,
    pentachoron_draws,
    pentachoron_volumes,
    relative_volume_histogram,
)
from modulant.geometry.permutation import Mantel, mantel
from modulant.geometry.procrustes import orthogonal_procrustes, principal_axes
from modulant.geometry.shapes import shape_features
from modulant.geometry.simplices import regular_simplex, simplex_volume, squared_edge_lengths, squared_simplex_volume
from modulant.geometry.spectral import mean_of_nearest, reproduction, spectral_embedding

__all__ = [
    "BINS",
    "BIN_WIDTH",
    "SMALLEST",
    "Form",
    "GroupedCosines",
    "Mantel",
    "Moments",
    "bilinear_form",
    "coefficient_of_variation",
    "cosine_moments",
    "covariance",
    "density_ratios",
    "dimensions_for",
    "effective_ranks",
    "eigenvalues_of",
    "entropy_rank",
    "entry_figures",
    "gaussian_entries",
    "gaussian_like",
    "gaussian_null_volumes",
    "gaussian_ranks",
    "gaussian_spectrum",
    "grouped_cosines",
    "isotropic_volumes",
    "mantel",
    "masked_mean",
    "mean_cosine",
    "mean_of_nearest",
    "orthogonal_procrustes",
    "participation_ratio",
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
    "squared_distance_moments",
    "squared_edge_lengths",
    "squared_simplex_volume",
    "stable_rank",
    "stream_gram",
    "symmetric_figures",
    "trace_cosine",
    "unbiased_participation_ratio",
    "weighted_pearson",
]
