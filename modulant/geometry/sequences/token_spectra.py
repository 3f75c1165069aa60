r"""Spectra and phases of series along tokens, and what they are without order.

A series is (tokens, columns): a state with its width, or one number a token. Frequencies are in cycles a token, from 0
to ½. Every power is a sum over columns, so a rotation of the columns changes nothing here.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

TAPERS = 4
SLOW = 0.05  # cycles a token: periods of more than 20 tokens


class SpectrumShape(NamedTuple):
    """Figures of a spectrum S(f), none of which changes with its scale.

    Attributes:
        centroid: Σ f S / Σ S, in cycles a token; ¼ of a flat spectrum.
        flatness: geometric over arithmetic mean of S; 1 of a flat spectrum.
        slope: of ln S over ln f, by least squares; 0 of a flat spectrum.
        slow_share: share of S at frequencies below 0.05.
    """

    centroid: Tensor
    flatness: Tensor
    slope: Tensor
    slow_share: Tensor


def sine_tapers(length: int, count: int = TAPERS) -> Float[Tensor, "count length"]:
    r"""Orthonormal tapers √(2/(T+1)) sin(π k t / (T+1)), t = 1 … T, k = 1 … count, in fp64 (Riedel and Sidorenko 1995).

    Raises:
        ValueError: more tapers than tokens, or none.
    """
    if not 1 <= count <= length:
        raise ValueError(f"sine_tapers: {count} tapers of {length} tokens; there may be 1 to as many as tokens")
    t = torch.arange(1, length + 1, dtype=torch.float64)
    k = torch.arange(1, count + 1, dtype=torch.float64)
    return math.sqrt(2 / (length + 1)) * torch.sin(torch.pi * k[:, None] * t / (length + 1))


def detrended(series: Float[Tensor, "*batch tokens columns"]) -> Float[Tensor, "*batch tokens columns"]:
    """The series without its mean and its linear trend, column by column."""
    n = series.shape[-2]
    line = torch.arange(n, dtype=series.dtype, device=series.device) - (n - 1) / 2
    centred = series - series.mean(-2, keepdim=True)
    if n < 2:
        return centred
    slope = (line[:, None] * centred).sum(-2, keepdim=True) / line.square().sum()
    return centred - slope * line[:, None]


def multitaper_spectrum(
    series: Float[Tensor, "*batch tokens columns"], grid: int | None = None, tapers: int = TAPERS
) -> Float[Tensor, "*batch frequencies"]:
    r"""S(f) = Σ_columns mean over sine tapers |Σ_t w_t x_t e^{−2πift}|², at f = 1/grid, 2/grid … ½. Unit: length².

    Take the mean and the trend away first (`detrended`). With a `grid` longer than the series (zeros after it), series
    of several lengths have the same frequencies.

    Raises:
        ValueError: a grid shorter than the series.
    """
    n = series.shape[-2]
    grid = grid or n
    if grid < n:
        raise ValueError(f"multitaper_spectrum: a grid of {grid} for {n} tokens; it must be at least as long")
    windows = sine_tapers(n, tapers).to(series.dtype).to(series.device)
    columns = series.mT.contiguous()
    total: Tensor = torch.zeros((), dtype=series.dtype, device=series.device)
    for window in windows:
        parts = torch.view_as_real(torch.fft.rfft(columns * window, n=grid))[..., 1:, :]
        total = total + parts.square().sum(-1).sum(-2)
    return total / tapers


def frequencies_of(grid: int) -> Float[Tensor, "frequencies"]:
    """Frequencies of `multitaper_spectrum`, in cycles a token.

    >>> frequencies_of(4)
    tensor([0.2500, 0.5000], dtype=torch.float64)
    """
    return torch.arange(1, grid // 2 + 1, dtype=torch.float64) / grid


def spectrum_shape(
    frequencies: Float[Tensor, "frequencies"], power: Float[Tensor, "*batch frequencies"]
) -> SpectrumShape:
    """Centroid, flatness, slope and slow share of a spectrum; NaN where there is no power.

    >>> f = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64)
    >>> [round(float(value), 6) for value in spectrum_shape(f, 1 / f)]
    [0.171429, 0.857143, -1.0, 0.0]
    """
    frequencies, power = frequencies.double(), power.double()
    shares = power / power.sum(-1, keepdim=True)
    logs, line = shares.log(), frequencies.log() - frequencies.log().mean()
    return SpectrumShape(
        shares @ frequencies,
        logs.mean(-1).exp() / shares.mean(-1),
        (logs @ line) / line.square().sum(),
        shares[..., frequencies < SLOW].sum(-1),
    )


def lag_one(series: Float[Tensor, "*batch tokens columns"]) -> Float[Tensor, "*batch"]:
    """Autocorrelation of neighbours, Σ_t ⟨x_t, x_{t+1}⟩ / Σ_t ‖x_t‖²; NaN of zeros.

    >>> lag_one(torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]))
    tensor(-0.7500)
    """
    products = (series[..., :-1, :] * series[..., 1:, :]).sum((-1, -2))
    return products / series.square().sum((-1, -2))


def shuffled_lag_one(
    series: Float[Tensor, "tokens columns"], draws: int, generator: torch.Generator
) -> Float[Tensor, "draws"]:
    """`lag_one` of the series with its rows in random orders, from its Gram matrix in fp64.

    Their mean is (‖Σx‖² − Σ‖x‖²) / (T Σ‖x‖²): −1/T where the rows sum to zero.
    """
    rows = series.double()
    gram = (rows @ rows.mT).cpu()
    orders = torch.rand(draws, len(rows), generator=generator).argsort(1)
    return gram[orders[:, :-1], orders[:, 1:]].sum(1) / gram.trace()


def phase_randomised(
    series: Float[Tensor, "*batch tokens columns"], generator: torch.Generator
) -> Float[Tensor, "*batch tokens columns"]:
    r"""A series with the same circular auto- and cross-spectra and nothing else of it (Prichard and Theiler 1994).

    Each frequency gets one random phase, the same in all columns, and another in each of the batch; mean and Nyquist
    frequency stay. So XᵀX and every circular autocovariance stay, to rounding: what a surrogate lacks is beyond second
    order.
    """
    n = series.shape[-2]
    spectrum = torch.fft.rfft(series, dim=-2)
    turns = torch.rand(*series.shape[:-2], spectrum.shape[-2], 1, generator=generator, dtype=torch.float64)
    turns[..., 0, :] = 0
    if n % 2 == 0:
        turns[..., -1, :] = 0
    phases = torch.polar(torch.ones_like(turns), 2 * torch.pi * turns).to(spectrum.dtype).to(series.device)
    return torch.fft.irfft(spectrum * phases, n=n, dim=-2)


def analytic_signal(
    series: Float[Tensor, "*batch tokens"], band: tuple[float, float] | None = None
) -> Complex[Tensor, "*batch tokens"]:
    """The analytic signal: positive frequencies doubled, negative ones dropped.

    Args:
        series: real, along its last dimension.
        band: lowest and highest frequency that are kept, in cycles a token. None: all, as SciPy's ``hilbert``. A phase
            has a meaning in a band alone.
    """
    n = series.shape[-1]
    frequencies = torch.fft.fftfreq(n, dtype=torch.float64, device=series.device)
    gain = torch.where(frequencies > 0, 2.0, 0.0).to(series.dtype)
    gain[0] = 1
    if n % 2 == 0:
        gain[n // 2] = 1
    if band is not None:
        inside = (frequencies.abs() >= band[0]) & (frequencies.abs() <= band[1])
        gain = torch.where(inside, gain, 0.0)
    return torch.fft.ifft(torch.fft.fft(series) * gain)


def pairwise_phase_consistency(signals: Complex[Tensor, "*batch series tokens"]) -> Float[Tensor, "*batch"]:
    r"""Mean over pairs of series of PPC = (|Σ_t e^{iΔφ_t}|² − T) / (T (T − 1)) (Vinck et al. 2010).

    Of independent phases its mean is 0 whatever T is, but tokens of a narrow band are not independent: compare it with
    surrogates. The sign of a series does not matter. NaN of a single series or token.
    """
    n, count = signals.shape[-1], signals.shape[-2]
    unit = signals / signals.abs().clamp_min(torch.finfo(signals.real.dtype).tiny)
    sums = (unit @ unit.mH).abs().square()
    pairs = (sums.sum((-1, -2)) - sums.diagonal(dim1=-2, dim2=-1).sum(-1)) / max(count * (count - 1), 1)
    found = (pairs - n) / max(n * (n - 1), 1)
    return found if min(n, count) > 1 else torch.full_like(found, torch.nan)


def permuted_power(points: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    r"""E|X_k|² = (D Σx² − (Σx)²) / (D − 1) of x with its D entries in random order, for every k ≠ 0. Unit: length².

    It is the same at every frequency: what a spectrum over entries is, if they have no order, is their variance alone.

    >>> permuted_power(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    tensor(1.)
    """
    dim = points.shape[-1]
    return (dim * points.square().sum(-1) - points.sum(-1).square()) / (dim - 1)


def spectral_concentration(points: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """1 − H / ln K of the powers |X_k|² over entries, 0 < k < D/2: 0 if flat, 1 if all of it is at one frequency.

    Of Gaussian entries about (1 − γ) / ln K, with Euler's γ. NaN where nothing varies.
    """
    power = torch.view_as_real(torch.fft.rfft(points))[..., 1 : (points.shape[-1] + 1) // 2, :].square().sum(-1)
    shares = power / power.sum(-1, keepdim=True)
    return 1 - torch.special.entr(shares).sum(-1) / math.log(power.shape[-1])
