"""Figures with their null and their interval, by names that a program can look for."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from modulant.metrics.functional.bootstrap import synset_weights
from modulant.metrics.functional.intervals import percentile_interval
from probes.findings import Findings, Null

PERMUTED_ANCHORS = "anchors' rows permuted, fitted again"
PERMUTED_ROWS = "rows of one model permuted"


@dataclass
class Record:
    """Findings of a comparison, and how often each held-out row comes in each resample.

    Attributes:
        found: figures, by name.
        nulls: number of draws of each null.
        replicates: number of resamples.
        seed: of both.
    """

    nulls: int
    replicates: int
    seed: int
    found: Findings = field(default_factory=Findings)

    def weights(self, rows: int) -> Tensor:
        """(replicates, rows): how often each row is drawn, with replacement."""
        return synset_weights(torch.zeros(rows, dtype=torch.uint8), self.replicates, self.seed)

    def orders(self, rows: int) -> list[Tensor]:
        """Permutations of the rows, one for each draw of a null."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        return [torch.randperm(rows, generator=generator) for _ in range(self.nulls)]

    def add(
        self,
        name: str,
        value: float,
        population: str,
        null: str = "",
        drawn: Sequence[float] = (),
        replicates: Tensor | None = None,
    ) -> None:
        """Store a figure; with draws of its null ``<name>_null``, with resamples ``<name>_low`` and ``<name>_high``."""
        self.found.add(name, value, population, null=Null(null, drawn) if drawn else None)
        if drawn:
            self.found.add(
                f"{name}_null", sum(drawn) / len(drawn), f"mean of {len(drawn)} draws" if len(drawn) > 1 else null
            )
        if replicates is not None:
            ends = percentile_interval(replicates.double().cpu().numpy()) or (float("nan"), float("nan"))
            for end, at in zip(("low", "high"), ends, strict=True):
                self.found.add(f"{name}_{end}", at, f"95% of {len(replicates)} resamples of rows")
