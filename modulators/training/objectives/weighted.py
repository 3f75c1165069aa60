"""A sum of objectives."""

from collections.abc import Mapping, Sequence

from modulant.lexicon import Lexicon
from modulant.settings import NonNegativeFloat, checked
from modulators.training.objectives.base import Objective, Synsets, Term, TrainingBatch


class WeightedObjectives(Objective):
    """Σ_i w_i · L_i of other objectives.

    Args:
        objectives: the objectives, each with its class and arguments.
        weights: one number each; null: 1 each.

    Raises:
        ValueError: no objective, another number of weights, or weights that are all zero.
    """

    @checked
    def __init__(self, objectives: Sequence[Objective], weights: Sequence[NonNegativeFloat] | None = None) -> None:
        self.objectives = list(objectives)
        self.weights = [1.0] * len(self.objectives) if weights is None else [float(weight) for weight in weights]
        if not self.objectives:
            raise ValueError("objectives is empty; it must hold at least one")
        if len(self.weights) != len(self.objectives):
            raise ValueError(
                f"weights has {len(self.weights)} numbers for {len(self.objectives)} objectives; give one each"
            )
        if not any(self.weights):
            raise ValueError("weights are all 0: nothing would be learnt; raise one")
        used = [part for part, weight in zip(self.objectives, self.weights, strict=True) if weight]
        self.needs_task = any(part.needs_task for part in used)
        self.needs_synsets = any(part.needs_synsets for part in used)
        self.needs_base = any(part.needs_base for part in used)

    def prepare(self, lexicon: Lexicon, synsets: Synsets) -> list[str]:
        return [note for part, _ in self._used() for note in part.prepare(lexicon, synsets)]

    def terms(self, batch: TrainingBatch) -> Mapping[str, Term]:
        """The terms of all, with their weights; behind a name that is taken stands the place of its objective."""
        found: dict[str, Term] = {}
        for number, (part, weight) in enumerate(self._used()):
            for name, term in part.terms(batch).items():
                found[name if name not in found else f"{name}_{number}"] = Term(term.value, weight * term.weight)
        return found

    def describe(self) -> dict[str, object]:
        return {
            **super().describe(),
            "objectives": [part.describe() for part in self.objectives],
            "weights": self.weights,
        }

    def _used(self) -> list[tuple[Objective, float]]:
        return [pair for pair in zip(self.objectives, self.weights, strict=True) if pair[1]]
