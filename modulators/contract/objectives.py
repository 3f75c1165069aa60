"""Contract checks of an objective, shipped or user-supplied, on random representations of real synsets."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from modulant.lexicon import Lexicon
from modulators.contract.cases import require
from modulators.training.objectives.base import Objective, Synsets, TrainingBatch, total

BuildObjective = Callable[[], Objective]
_SIZE, _WIDTH, _OF_EACH = 24, 16, 100


def gives_one_number(build: BuildObjective) -> None:
    """The loss of a batch is one finite number, the same each time."""
    objective, synsets = _prepared(build)
    batch = _batch(objective, synsets)
    loss = total(objective.terms(batch))
    require(loss.shape == (), f"the loss has shape {tuple(loss.shape)}; each term must be a scalar")
    require(bool(loss.isfinite()), f"the loss is {float(loss.detach())}")
    require(torch.equal(loss, total(objective.terms(batch))), "a second call with the same batch gives another loss")


def reaches_what_it_needs(build: BuildObjective) -> None:
    """What it says it needs has a finite gradient that is not zero; what it does not need it does not touch."""
    objective, synsets = _prepared(build)
    batch = _batch(objective, synsets)
    total(objective.terms(batch)).backward()
    for name, needed in (("representations", objective.needs_synsets), ("task_loss", objective.needs_task)):
        given = getattr(batch, name)
        if not needed:
            continue
        require(given.grad is not None, f"needs it, but {name} gets no gradient")
        require(bool(given.grad.isfinite().all()), f"the gradient of {name} is not finite")
        require(bool(given.grad.any()), f"the gradient of {name} is zero")


def does_not_depend_on_the_order(build: BuildObjective) -> None:
    """The examples of a batch may come in any order."""
    objective, synsets = _prepared(build)
    batch = _batch(objective, synsets)
    order = np.random.default_rng(1).permutation(_SIZE)
    loss, other = (float(total(objective.terms(given)).detach()) for given in (batch, _reordered(batch, order)))
    require(abs(loss - other) <= 1e-5 * max(1.0, abs(loss)), f"the loss is {loss}, and {other} in another order")


def is_defined_for_any_batch(build: BuildObjective) -> None:
    """Batches without variance (all representations equal, one part of speech, two synsets) have a finite gradient."""
    objective, synsets = _prepared(build)
    lexicon = Lexicon.load()
    cases: dict[str, tuple[Synsets, bool]] = {
        "all representations equal": (synsets[:_SIZE], True),
        "adverbs alone": (synsets[lexicon.pos[synsets] == "r"][:_SIZE], False),
        "two synsets": (synsets[:2], False),
        "one synset": (synsets[:1], False),
    }
    for name, (some, equal) in cases.items():
        batch = _batch(objective, some, equal)
        loss = total(objective.terms(batch))
        require(bool(loss.isfinite()), f"{name}: the loss is {float(loss.detach())}")
        if loss.requires_grad:
            loss.backward()
        for given in (batch.representations, batch.task_loss):
            if given is not None and given.grad is not None:
                require(bool(given.grad.isfinite().all()), f"{name}: the gradient is not finite")


OBJECTIVE = (gives_one_number, reaches_what_it_needs, does_not_depend_on_the_order, is_defined_for_any_batch)


def _prepared(build: BuildObjective) -> tuple[Objective, Synsets]:
    """An objective, and training synsets of all parts of speech; each that has a hypernym stands before it."""
    objective, lexicon = build(), Lexicon.load()
    rng = np.random.default_rng(0)
    of_kind = [rng.permutation(np.flatnonzero(lexicon.pos == kind))[:_OF_EACH] for kind in ("n", "v", "a", "r")]
    some = np.stack(of_kind, axis=1).flatten()
    synsets = np.stack([some, lexicon.taxonomy.hypernym_chains(some, 1)[:, 0]], axis=1).flatten()
    synsets = synsets[np.sort(np.unique(synsets, return_index=True)[1])]
    synsets = synsets[synsets >= 0].astype(np.int64)
    objective.prepare(lexicon, np.sort(synsets))
    return objective, synsets


def _batch(objective: Objective, synsets: Synsets, equal: bool = False) -> TrainingBatch:
    some = synsets[:_SIZE]
    generator = torch.Generator().manual_seed(2)
    points, base = torch.randn(2, len(some), _WIDTH, generator=generator).unbind(0)
    if equal:
        points = points[:1].expand(len(some), -1).contiguous()
    leaf = _leaf(points) if objective.needs_synsets else None
    return TrainingBatch(
        task_loss=_leaf(torch.tensor(2.5)) if objective.needs_task else None,
        representations=leaf,
        base=base if objective.needs_base else None,
        synsets=some if objective.needs_synsets else None,
    )


def _leaf(values: Tensor) -> Tensor:
    return values.clone().requires_grad_(True)


def _reordered(batch: TrainingBatch, order: Synsets) -> TrainingBatch:
    rows = torch.from_numpy(order)
    return TrainingBatch(
        batch.task_loss,
        None if batch.representations is None else batch.representations[rows],
        None if batch.base is None else batch.base[rows],
        None if batch.synsets is None else batch.synsets[order],
    )
