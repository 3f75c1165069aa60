"""Spectra along the tokens of a layer, with three nulls: rows shuffled, input shuffled, phases randomised."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from modulant.geometry import (
    SpectrumShape,
    detrended,
    frequencies_of,
    lag_one,
    multitaper_spectrum,
    phase_randomised,
    shuffled_lag_one,
    spectrum_shape,
)
from modulant.metrics.functional.intervals import percentile_interval
from modulant.reports.wording import counted
from probes.findings import Findings, Null
from probes.spectra.passes import place_of

VARIANTS = ("", "unit/")  # states as they are, and each divided by its length
SHAPES = SpectrumShape._fields
ROWS_SHUFFLED = "rows shuffled"
INPUT_SHUFFLED = "tokens shuffled before the pass"
PHASES = "phases randomised"
_ORDERS, _SPECTRA, _SURROGATES = 999, 10, 2  # draws: lag-1 of shuffled rows, their spectra, phases
_BOOTSTRAP = 999
_GRID = 64  # a grid is a multiple of it, which an FFT is fast on


@dataclass(frozen=True, eq=False)
class Along:
    """Rows along their tokens.

    Attributes:
        lag: lag-1.
        power: (F,) spectrum, its mean 1: texts count alike, however long their states.
    """

    lag: float
    power: Tensor


@dataclass(frozen=True, eq=False)
class TextTokens:
    """What was measured on one text, of one layer and variant.

    Attributes:
        observed: the text.
        input_shuffled: the same with its tokens shuffled, mean over shuffles.
        rows_lags: (draws,) lag-1 of shuffled rows.
        rows_powers: (draws, F) their spectra.
        phases: of phase-randomised rows, mean over draws.
    """

    observed: Along
    input_shuffled: Along
    rows_lags: Tensor
    rows_powers: Tensor
    phases: Along


def grid_for(lengths: Sequence[int]) -> int:
    """Points of the common grid of frequencies: at least the longest."""
    return -(-max(lengths) // _GRID) * _GRID


def along(states: Tensor, variant: str, grid: int) -> Along:
    """Spectrum and lag-1 of states (tokens, D)."""
    return _along(rows_of(states, variant), grid)


def rows_of(states: Tensor, variant: str) -> Tensor:
    """States without mean and trend, of length 1 before that in the second variant."""
    return detrended(F.normalize(states, dim=-1) if variant else states)


def measure_text(states: Tensor, shuffled: Sequence[Along], variant: str, grid: int, seed: int) -> TextTokens:
    """Everything of one text, layer and variant; `seed` is the text's, so that all layers have the same orders."""
    generator = torch.Generator().manual_seed(seed)
    rows = rows_of(states, variant)
    lags = shuffled_lag_one(rows, _ORDERS, generator)
    orders = (torch.randperm(len(rows), generator=generator) for _ in range(_SPECTRA))
    powers = torch.stack([_power(rows[order], grid) for order in orders])
    phases = [_along(phase_randomised(rows, generator), grid) for _ in range(_SURROGATES)]
    return TextTokens(_along(rows, grid), mean_of(shuffled), lags, powers, mean_of(phases))


def mean_of(some: Sequence[Along]) -> Along:
    return Along(sum(one.lag for one in some) / len(some), torch.stack([one.power for one in some]).mean(0))


def _along(rows: Tensor, grid: int) -> Along:
    return Along(float(lag_one(rows.double())), _power(rows, grid))


def _power(rows: Tensor, grid: int) -> Tensor:
    power = multitaper_spectrum(rows, grid).double()
    return power / power.mean()


class TokenFigures:
    """Figures over texts, and their intervals and spectra.

    Attributes:
        intervals: figure → 95% over texts.
        curves: place → spectra, for charts.
    """

    def __init__(self, found: Findings, prefix: str, grid: int, seed: int) -> None:
        self.found, self.prefix, self.seed = found, prefix, seed
        self.frequencies = frequencies_of(grid)
        self.intervals: dict[str, tuple[float, float]] = {}
        self.curves: dict[str, dict[str, list[float]]] = {}

    def add(self, layers: Mapping[int, Mapping[str, Sequence[TextTokens]]]) -> None:
        """``layer_03/lag1``, ``…/lag1_rows_shuffled``, ``…/slope``, …; ``layer_03/unit/…`` of states of length 1."""
        for layer, variants in layers.items():
            for variant, texts in variants.items():
                self._add_layer(f"{self.prefix}{place_of(layer)}/{variant}", texts)
            self.curves[f"{self.prefix}{place_of(layer)}"] = self._curves(variants[""])
        for variant in VARIANTS:
            self._add_families({layer: variants[variant] for layer, variants in layers.items()}, variant)

    def _add_layer(self, at: str, texts: Sequence[TextTokens]) -> None:
        n = len(texts)
        population = counted(n, "text")
        picks = torch.randint(n, (_BOOTSTRAP, n), generator=torch.Generator().manual_seed(self.seed))
        lags = {key: torch.tensor([one.lag for one in of]) for key, of in _ways(texts).items()}
        null = torch.stack([text.rows_lags for text in texts]).mean(0)
        observed = float(lags["observed"].mean())
        self._put(f"{at}lag1", lags["observed"].mean(), population, lags["observed"][picks].mean(1), n, null)
        self._put(f"{at}lag1_rows_shuffled", null.mean(), f"{population}, {_ORDERS} orders")
        for key in ("input_shuffled", "phase_randomised"):
            self._put(f"{at}lag1_{key}", lags[key].mean(), population, lags[key][picks].mean(1), n)
        far = (null - null.mean()).abs() >= abs(observed - float(null.mean())) - 1e-12
        self.found.add(f"{at}lag1_p", (1 + int(far.sum())) / (_ORDERS + 1), population)
        beyond = lags["observed"] - lags["input_shuffled"]
        self._put(f"{at}lag1_beyond_input", beyond.mean(), population, beyond[picks].mean(1), n)
        powers = {key: torch.stack([one.power for one in of]) for key, of in _ways(texts).items()}
        rows = spectrum_shape(self.frequencies, torch.stack([text.rows_powers for text in texts]).mean(0))
        shapes = {key: spectrum_shape(self.frequencies, power.mean(0)) for key, power in powers.items()}
        drawn = spectrum_shape(self.frequencies, powers["observed"][picks].mean(1))
        for i, name in enumerate(SHAPES):
            unit = "cycles a token" if name == "centroid" else ""
            self._put(f"{at}{name}", shapes["observed"][i], population, drawn[i], n, rows[i], unit)
            self._put(f"{at}{name}_rows_shuffled", rows[i].mean(), f"{population}, {_SPECTRA} orders", unit=unit)
            for key in ("input_shuffled", "phase_randomised"):
                self._put(f"{at}{name}_{key}", shapes[key][i], population, unit=unit)

    def _put(
        self,
        name: str,
        value: Tensor,
        population: str,
        replicates: Tensor | None = None,
        texts: int = 0,
        null: Tensor | None = None,
        unit: str = "",
    ) -> None:
        drawn = None if null is None else Null(ROWS_SHUFFLED, null.tolist())
        self.found.add(name, float(value), population, unit, drawn)
        if replicates is not None and texts > 1 and (ends := percentile_interval(replicates.double().numpy())):
            self.intervals[name] = ends

    def _add_families(self, layers: Mapping[int, Sequence[TextTokens]], variant: str) -> None:
        """p over all layers at once, by the largest of equal draws: against shuffled rows, and shuffled input.

        Against shuffled input the draws turn the sign of some texts' differences: if a text's order were nothing,
        either could be the shuffled one. All signs are gone through, so of few texts p cannot be small.
        """
        n = len(next(iter(layers.values())))
        null = torch.stack([torch.stack([text.rows_lags for text in texts]).mean(0) for texts in layers.values()])
        lags = torch.tensor([[text.observed.lag for text in texts] for texts in layers.values()], dtype=torch.float64)
        shuffled = [[text.input_shuffled.lag for text in texts] for texts in layers.values()]
        middle, spread = null.mean(1), null.std(1, correction=0)
        largest = ((null - middle[:, None]) / spread[:, None]).abs().max(0).values
        against_rows = (lags.mean(1) - middle).abs() / spread
        differences = lags - torch.tensor(shuffled, dtype=torch.float64)
        signs = _signs(n, self.seed)
        scale = differences.square().mean(1).sqrt().clamp_min(1e-12)
        turned = (signs @ differences.mT / n).abs() / scale  # (draws, layers)
        against_input = differences.mean(1).abs() / scale
        for i, layer in enumerate(layers):
            at = f"{self.prefix}{place_of(layer)}/{variant}"
            what = f"{counted(n, 'text')}, largest of {len(layers)} places"
            p = (1 + int((largest >= against_rows[i] - 1e-12).sum())) / (_ORDERS + 1)
            self.found.add(f"{at}lag1_p_family", p, what)
            if n == 1:
                self.found.figures[f"{at}lag1_beyond_input_p_family"] = None
                self.found.reasons[f"{at}lag1_beyond_input_p_family"] = "a single text"
                continue
            p = float((turned.max(1).values >= against_input[i] - 1e-12).double().mean())
            self.found.add(f"{at}lag1_beyond_input_p_family", p, what)

    def _curves(self, texts: Sequence[TextTokens]) -> dict[str, list[float]]:
        ways = {key: torch.stack([one.power for one in of]).mean(0) for key, of in _ways(texts).items()}
        # One order alone: a mean over orders would look smoother than a text can be.
        ways["rows_shuffled"] = torch.stack([text.rows_powers[0] for text in texts]).mean(0)
        return {key: [round(value, 4) for value in power.tolist()] for key, power in ways.items()}


def _ways(texts: Sequence[TextTokens]) -> dict[str, list[Along]]:
    return {
        "observed": [text.observed for text in texts],
        "input_shuffled": [text.input_shuffled for text in texts],
        "phase_randomised": [text.phases for text in texts],
    }


def _signs(n: int, seed: int) -> Tensor:
    """(draws, n) of ±1: all of them up to ten texts, else 999 drawn and the observed one."""
    if n <= 10:
        return torch.tensor(list(product((1.0, -1.0), repeat=n)), dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(2, (_BOOTSTRAP, n), generator=generator).double() * 2 - 1
    return torch.cat([torch.ones(1, n, dtype=torch.float64), drawn])
