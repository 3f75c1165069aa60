"""Every objective that is shipped, and the example, keep the contract; each check fails on one that violates it."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modulators import LemmaObjective, Objective, RelationalObjective, WeightedObjectives
from modulators.contract.objectives import OBJECTIVE
from modulators.contract.suite import examine_objective
from modulators.training.objectives.base import Term, TrainingBatch

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "hypernyms.py"


def example() -> Objective:
    spec = importlib.util.spec_from_file_location("hypernyms", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.HypernymContrast()  # type: ignore[no-any-return]


SHIPPED: dict[str, Callable[[], Objective]] = {
    "lemma": LemmaObjective,
    "relational": RelationalObjective,
    "wup": lambda: RelationalObjective(relation="wup", task=0.0, keep=0.0),
    "shuffled": lambda: RelationalObjective(taxonomy="shuffled"),
    "part_of_speech": lambda: RelationalObjective(taxonomy="part_of_speech"),
    "random": lambda: RelationalObjective(taxonomy="random"),
    "keep_alone": lambda: RelationalObjective(all_pairs=0.0, nouns=0.0, verbs=0.0, task=0.5),
    "weighted": lambda: WeightedObjectives([LemmaObjective(), RelationalObjective(task=0.0)], [0.1, 2.0]),
    "example": example,
}


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("check", OBJECTIVE, ids=lambda check: check.__name__)
def test_it_keeps(check: Callable[..., None], name: str) -> None:
    check(SHIPPED[name])


class Vector(RelationalObjective):
    def terms(self, batch: TrainingBatch) -> Any:
        assert batch.representations is not None
        return {"loss": Term(batch.representations.sum(-1))}


class Idle(RelationalObjective):
    def terms(self, batch: TrainingBatch) -> Any:
        return {name: Term(term.value.detach()) for name, term in super().terms(batch).items()}


class FirstOne(RelationalObjective):
    def terms(self, batch: TrainingBatch) -> Any:
        assert batch.representations is not None
        return {"loss": Term(batch.representations[0].sum() + 0 * super().terms(batch)["task"].value)}


class Unguarded(Objective):
    def terms(self, batch: TrainingBatch) -> Any:
        assert batch.representations is not None
        cosines = batch.representations @ batch.representations.mT
        return {"loss": Term((cosines / cosines.std()).sum())}


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (Vector, "gives_one_number"),
        (Idle, "reaches_what_it_needs"),
        (FirstOne, "does_not_depend_on_the_order"),
        (Unguarded, "is_defined_for_any_batch"),
    ],
)
def test_a_broken_one_fails(kind: Callable[[], Objective], check: str) -> None:
    torch.manual_seed(0)
    assert check in [result.name for result in examine_objective(kind) if result.reason]
