"""One to four processes: the same figures of one to seventeen samples, and the same training, as one process alone."""

import functools
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import runs, worlds
from tests.faults.conftest import ALL, Tally, many

WORLDS = (1, 2, 3, 4) if ALL else (2,)
SAMPLES = tuple(range(1, 18)) if ALL else (1, 2, 5)

FIGURES = "world sizes 1-4 x 1-17 samples"
TRAINING = "training with W processes and batch b against one with W*b"
STOPPING = "processes that disagree about an early stop"

FIGURE = 1e-6  # relative
# Other parts of a batch are padded and summed together: fp32's rounding, which AdamW's division makes no smaller.
LOSS = 1e-6  # relative; measured: 2.1e-7
WEIGHT = 2e-6  # absolute, of weights of about 0.1 after ten steps of 0.01; measured: 2.4e-7

pytestmark = [
    pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode at the start of training"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


class Alone:
    """What one process finds that knows nothing of others."""

    def __init__(self, folder: Path) -> None:
        self.wordnet = str(runs.small_wordnet(folder / "wordnet", 48))  # and twelve lemmas of two words
        self.backbone = runs.tiny_backbone(folder / "backbone")
        where: dict[str, Any] = {"wordnet": self.wordnet, "folder": str(folder / "out")}
        self.validation = partial(worlds.validation, backbone=self.backbone, baselines=ALL, **where)
        self.training = partial(worlds.training, backbone=self.backbone, **where)
        self.disagreement = partial(worlds.disagreement, self.wordnet, self.backbone, str(folder / "out"))
        self.pretraining = partial(worlds.pretraining, **where)
        self.relational = partial(worlds.relational, backbone=self.backbone, **where)

    @functools.cache  # noqa: B019
    def figures(self, n: int) -> tuple[dict[str, float], dict[str, float]]:
        return worlds.metric_figures(n), self.validation(n)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    return Alone(tmp_path_factory.mktemp("worlds"))


def differ(found: dict[str, float], expected: dict[str, float], tolerance: float = FIGURE) -> list[str]:
    """Keys that one of two lacks, or whose figures are not the same; NaN is NaN's equal."""

    def same(a: float, b: float) -> bool:
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-9) or (math.isnan(a) and math.isnan(b))

    lacking = found.keys() ^ expected.keys()
    return sorted(lacking) + [key for key in found.keys() - lacking if not same(found[key], expected[key])]


def trained_otherwise(found: dict[str, Any], expected: dict[str, Any], skipped: int = 0) -> list[str]:
    """What differs between two trainings, the second one's first steps left out."""
    wrong = []
    for key in ("losses", "validation"):
        here, there = found[key], expected[key][skipped if key == "losses" else 0 :]
        if key == "validation" and skipped:  # nothing is validated before the first step of a resumed run
            here, there = here[1:], there[1:]
        if len(here) != len(there) or not all(
            math.isclose(a, b, rel_tol=LOSS) for a, b in zip(here, there, strict=True)
        ):
            wrong.append(f"{key}: {here} for {there}")
    for key, weight in expected["weights"].items():
        if not torch.allclose(found["weights"][key], weight, rtol=0, atol=WEIGHT):
            wrong.append(f"{key}: off by {(found['weights'][key] - weight).abs().max():.2g}")
    return wrong


@pytest.mark.parametrize("n", SAMPLES)
def test_one_process_finds_what_a_loop_over_entries_finds(n: int, alone: Alone) -> None:
    expected = worlds.entry_by_entry(n, alone.wordnet, alone.backbone)
    found = alone.figures(n)[1]
    assert not differ({key: found[key] for key in expected}, expected)


@pytest.mark.parametrize("world", WORLDS)
def test_a_world_finds_and_learns_what_one_process_does(world: int, alone: Alone, tally: Tally, tmp_path: Path) -> None:
    """One start of the processes for all of it: that is what costs.

    49 entries are trained on in batches of 4 a process: the last batch of an epoch is one entry, and all processes but
    one are left without.
    """
    tally.tried(FIGURES, len(SAMPLES), note="every figure of metrics and of `validate` as one process's, to 1e-6")
    note = "losses at each step, weights at the end; also accumulation, pre-training, the relation, and resumed by one"
    tally.tried(TRAINING, 5, note=note)
    trainings = [
        partial(alone.training, 4, folder=str(tmp_path / "run"), workers=int(world == 2), save_at=6),
        partial(alone.training, 4, accumulate=3, gradient_checkpointing=True),
        partial(alone.pretraining, 8),
        partial(alone.relational, 6),
    ]
    expected = [
        alone.training(4 * world),
        alone.training(4 * world, accumulate=3),
        alone.pretraining(8 * world),
        alone.relational(6 * world),
    ]
    jobs = [partial(worlds.metric_figures, n) for n in SAMPLES] + [partial(alone.validation, n) for n in SAMPLES]
    disagreements = [(1, 0), (0, 1), (1, 1)][: many(3, 1)] if world == 2 else []
    stops = [partial(alone.disagreement, drift, rest) for drift, rest in disagreements]
    found = worlds.together(world, [*jobs, *stops, worlds.step_of_what_is_loaded, *trainings], tmp_path / "world")
    assert [rank[-5] for rank in found] == [7] * world

    wrong: dict[str, Any] = {}
    for i, n in enumerate(SAMPLES):
        metric, validated = alone.figures(n)
        off = [differ(rank[i], metric) + differ(rank[len(SAMPLES) + i], validated) for rank in found]
        if any(off):
            wrong[f"{n} samples"] = off
        else:
            tally.survived(FIGURES)
    if stops:
        tally.tried(STOPPING, len(stops), note="all stop where the first one does, and none waits for another")
        steps = [rank[len(jobs) : len(jobs) + len(stops)] for rank in found]
        if steps == [[3, 7, 28][: len(stops)]] * 2:
            tally.survived(STOPPING, len(stops))
        else:
            wrong["steps"] = steps
    resumed = alone.training(4 * world, resume=str(tmp_path / "run" / "step_6.ckpt"))
    compared = {
        "training": [trained_otherwise(rank[-4], expected[0]) for rank in found],
        "accumulation": [trained_otherwise(rank[-3], expected[1]) for rank in found],
        "pre-training": [trained_otherwise(rank[-2], expected[2]) for rank in found],
        "the relation": [trained_otherwise(rank[-1], expected[3]) for rank in found],
        "resumed by one process": [trained_otherwise(resumed, expected[0], skipped=6)],
    }
    for name, off in compared.items():
        if any(off):
            wrong[name] = off
        else:
            tally.survived(TRAINING)
    assert not wrong
