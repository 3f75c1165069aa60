"""One to four processes: the same figures of one to seventeen samples, and the same training, as one process alone."""

import functools
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from modulators import FieldModulator, ModulatedCausalLM, ModulatedEncoder
from tests import jobs, runs, worlds
from tests.faults.conftest import ALL, Tally, many
from tests.tiny_families import build
from tests.word_tokenizer import save_word_tokenizer

WORLDS = (1, 2, 3, 4) if ALL else (2,)
SAMPLES = tuple(range(1, 18)) if ALL else (1, 2, 5)

FIGURES = "world sizes 1-4 x 1-17 samples"
TRAINING = "training with W processes and batch b against one with W*b"
STOPPING = "processes that disagree about an early stop"

FIGURE = 1e-6  # relative
# Other parts of a batch are padded and summed together: fp32's rounding, which AdamW's division makes no smaller.
LOSS = 5e-6  # relative; measured: 2.1e-7, and 1.8e-6 of a causal model, whose random cosines are all near 1
WEIGHT = 5e-6  # absolute, of weights of about 0.1 after ten steps of 0.01; measured: 2.4e-7, 2.7e-6 of a causal model

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
        self.validation = partial(jobs.validation, backbone=self.backbone, baselines=ALL, **where)
        self.training = partial(jobs.training, backbone=self.backbone, **where)
        self.disagreement = partial(jobs.disagreement, self.wordnet, self.backbone, str(folder / "out"))
        self.pretraining = partial(jobs.pretraining, **where)
        self.relational = partial(jobs.relational, backbone=self.backbone, **where)
        bert, gpt2 = (_of_words(folder / name, name, self.wordnet) for name in ("bert", "gpt2"))
        masked = partial(jobs.relational, kind=ModulatedEncoder, mask_share=0.4)
        self.encoder = partial(masked, backbone=bert, **where)
        self.causal = partial(jobs.relational, kind=ModulatedCausalLM, backbone=gpt2, **where)

    @functools.cache  # noqa: B019
    def figures(self, n: int) -> tuple[dict[str, float], dict[str, float]]:
        return jobs.metric_figures(n), self.validation(n)


def _of_words(folder: Path, model_type: str, wordnet: str) -> str:
    names = ("pad_token", "unk_token", "mask_token", "eos_token")
    n_words = save_word_tokenizer(str(folder), wordnet, {name: f"[{name}]" for name in names})
    build(model_type, vocab_size=n_words).save_pretrained(folder)
    return str(folder)


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
    expected = jobs.entry_by_entry(n, alone.wordnet, alone.backbone)
    found = alone.figures(n)[1]
    assert not differ({key: found[key] for key in expected}, expected)


@pytest.mark.parametrize("world", WORLDS)
def test_a_world_finds_and_learns_what_one_process_does(world: int, alone: Alone, tally: Tally, tmp_path: Path) -> None:
    """One start of the processes for all of it: that is what costs.

    49 entries are trained on in batches of 4 a process: the last batch of an epoch is one entry, and all processes but
    one are left without.
    """
    tally.tried(FIGURES, len(SAMPLES), note="every figure of metrics and of `validate` as one process's, to 1e-6")
    first = partial(alone.training, folder=str(tmp_path / "run"), workers=int(world == 2), save_at=6)
    trainings: dict[str, tuple[worlds.Job, dict[str, Any]]] = {  # of a process, and what one alone learns
        "training": (partial(first, 4), alone.training(4 * world)),
        "accumulation": (
            partial(alone.training, 4, accumulate=3, gradient_checkpointing=True),
            alone.training(4 * world, accumulate=3),
        ),
        "pre-training": (partial(alone.pretraining, 8), alone.pretraining(8 * world)),
        "the relation": (partial(alone.relational, 6), alone.relational(6 * world)),
        "an encoder's hidden tokens": (partial(alone.encoder, 6), alone.encoder(6 * world)),
        "a causal model": (partial(alone.causal, 6), alone.causal(6 * world)),
        **{
            key: (
                partial(alone.training, 4, accumulate=2, **{key: 3}),
                alone.training(4 * world, accumulate=2, **{key: 3}),
            )
            for key in ("limit_train_batches", "overfit_batches")
        },
    }
    note = f"losses at each step, weights at the end: {', '.join(trainings)}; and resumed by one"
    tally.tried(TRAINING, len(trainings) + 1, note=note)
    figures = [partial(jobs.metric_figures, n) for n in SAMPLES] + [partial(alone.validation, n) for n in SAMPLES]
    disagreements = [(1, 0), (0, 1), (1, 1)][: many(3, 1)] if world == 2 else []
    stops = [partial(alone.disagreement, drift, rest) for drift, rest in disagreements]
    all_jobs = [*figures, *stops, jobs.step_of_what_is_loaded, *(job for job, _ in trainings.values())]
    found = worlds.together(world, all_jobs, tmp_path / "world")
    assert [rank[-len(trainings) - 1] for rank in found] == [7] * world

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
        steps = [rank[len(figures) : len(figures) + len(stops)] for rank in found]
        if steps == [[3, 7, 28][: len(stops)]] * 2:
            tally.survived(STOPPING, len(stops))
        else:
            wrong["steps"] = steps
    resumed = alone.training(4 * world, resume=str(tmp_path / "run" / "step_6.ckpt"))
    compared = {
        name: [trained_otherwise(rank[i - len(trainings)], expected) for rank in found]
        for i, (name, (_, expected)) in enumerate(trainings.items())
    }
    assert [len(trainings[key][1]["losses"]) for key in ("limit_train_batches", "overfit_batches")] == [6, 6]
    compared["resumed by one process"] = [trained_otherwise(resumed, trainings["training"][1], skipped=6)]
    for name, off in compared.items():
        if any(off):
            wrong[name] = off
        else:
            tally.survived(TRAINING)
    assert not wrong


@pytest.mark.slow
def test_two_compiled_processes(alone: Alone, tmp_path: Path) -> None:
    """As one process learns eagerly; where a rank is left without an entry, too."""
    modulator = partial(FieldModulator, initial_alpha=0.2, expert_ks=(2,))  # one expert is traced sooner than two
    train = partial(alone.training, accumulate=3, model={"modulator": modulator})
    job = partial(train, 4, compile=True, gradient_checkpointing=True)
    expected = train(8)
    for (found,) in worlds.together(2, [job], tmp_path / "world"):
        assert not trained_otherwise(found, expected)
