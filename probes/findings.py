"""Figures as they are found: each with its unit and population, and with its null where it has one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modulant.metrics.functional.intervals import percentile_interval


@dataclass(frozen=True)
class Null:
    """What a figure would be if there were nothing to find.

    Attributes:
        what: the null, in words.
        values: drawn; a single one is a closed form.
    """

    what: str
    values: Sequence[float]

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)

    def as_json(self) -> dict[str, Any]:
        """Mean, standard deviation and number of draws; of a closed form the value alone."""
        n, mean = len(self.values), self.mean
        sd = math.sqrt(math.fsum((value - mean) ** 2 for value in self.values) / n) if n > 1 else None
        return {"what": self.what, "mean": mean, "sd": sd, "n": n if n > 1 else None}


@dataclass
class Findings:
    """Everything that was measured, by the figures' names.

    Attributes:
        figures: name → number; None for what is undefined or does not apply.
        units: name → unit; "" for none.
        populations: name → what it is over.
        nulls: name → the null of the figure, as `Null.as_json` gives it.
        reasons: name of a figure or of a group → why it is None.
    """

    figures: dict[str, float | None] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    populations: dict[str, str] = field(default_factory=dict)
    nulls: dict[str, dict[str, Any]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, value: float, population: str, unit: str = "", null: Null | None = None) -> None:
        """Store a figure; what is not finite is None."""
        self.figures[name] = float(value) if math.isfinite(value) else None
        self.units[name] = unit
        self.populations[name] = population
        if null is not None:
            self.nulls[name] = null.as_json()
        if self.figures[name] is None:
            self.reasons[name] = "undefined: nothing varies, or there is no such pair"

    def add_interval(self, name: str, resamples: Sequence[float], population: str) -> None:
        """Store ``<name>_low`` and ``<name>_high``, the ends of the middle 95% of its resamples."""
        low, high = percentile_interval(np.asarray(resamples)) or (math.nan, math.nan)
        self.add(f"{name}_low", low, population, self.units.get(name, ""))
        self.add(f"{name}_high", high, population, self.units.get(name, ""))

    def leave_out(self, group: str, names: Sequence[str], why: str) -> None:
        """Store figures that do not apply, with the reason."""
        for name in names:
            self.figures[f"{group}/{name}"] = None
        self.reasons[group] = why
