"""The plan: sizes, arms, seeds and runs, fixed and written down before anything trains."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from probes.controls.plan import Run
from probes.controls.settings import Control, Options
from probes.pages import write_text
from probes.waves.arms import CENTRES, FACTORS, Arm, Design, Sizes, coherence, design
from probes.waves.tuning import LENGTH, WEIGHTS, grid, named
from wavegpt.config import WaveConfig

RECORD = "waves.json"
TUNING_SEED = 1000  # none of the seeds that are compared


@dataclass(frozen=True)
class Scale:
    """A named size of the experiment.

    Attributes:
        about: for whom, in a line.
        lines: that are run where none are named.
    """

    about: str
    sizes: Sizes
    lines: tuple[str, ...]


SCALES: Mapping[str, Scale] = {
    "cpu": Scale(
        "two cores, an hour or more: direction only",
        Sizes(d_model=64, layers=2, heads=4, context=64, vocab_size=1024, waves=16, batch_tokens=1024, steps=400),
        ("mass", "phase", "loss"),
    ),
    "gpu": Scale(
        "a GPU, an hour or two",
        Sizes(d_model=256, layers=4, heads=4, context=256, vocab_size=1024, waves=32, batch_tokens=8192, steps=1500),
        ("mass", "phase", "terms", "loss", "optimizer", "presets", "seconds"),
    ),
    "large": Scale(
        "GPUs, days",
        Sizes(d_model=384, layers=8, heads=8, context=256, vocab_size=1024, waves=48, batch_tokens=8192, steps=5000),
        ("mass", "phase", "terms", "loss", "optimizer", "presets", "seconds"),
    ),
}


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        options: of train.py, for every run.
        held_out: share of the documents for validation, and again for the test.
    """

    sizes: Sizes
    design: Design
    seeds: tuple[int, ...]
    corpus: str
    tokenizer: str
    options: Options
    held_out: float
    output: Path

    @property
    def settings(self) -> dict[str, Any]:
        """What all runs of OUTPUT share."""
        return {
            **asdict(self.sizes), "corpus": self.corpus, "tokenizer": self.tokenizer, "held_out": self.held_out,
            "options": [list(option) for option in self.options],
        }  # fmt: skip

    @property
    def tuned(self) -> list[Arm]:
        """The arms that have a sweep of their own."""
        names = dict.fromkeys(arm.tuning for arm in self.design.arms.values())
        return [self.design.arms[name] for name in names]

    def data(self) -> dict[str, Any]:
        """Arguments of the DataModule."""
        return {
            "corpus": self.corpus, "tokenizer": self.tokenizer, "vocab_size": self.sizes.vocab_size,
            "context": self.sizes.context, "batch_tokens": self.sizes.batch_tokens, "val_fraction": self.held_out,
            "test_fraction": self.held_out, "seed": 42,
        }  # fmt: skip


@dataclass(frozen=True)
class Training:
    """A run with what it trains.

    Attributes:
        arm: which.
        run: its name, seed and folder, for the runner.
        lr: learning rate.
        weight: λ of the loss's terms; 0 without.
        steps: of its budget.
    """

    arm: Arm
    run: Run
    lr: float
    weight: float
    steps: int


def grid_of(arm: Arm) -> list[float]:
    """Learning rates of an arm's sweep, before an extension."""
    return grid(CENTRES[arm.config.optimizer.base])


def rates(plan: Plan, arm: Arm, lrs: Sequence[float], whole: bool = False) -> list[Training]:
    """A sweep of an arm's learning rate, over a part of a run or over whole ones."""
    steps = plan.sizes.steps if whole else max(round(LENGTH * plan.sizes.steps), 1)
    found = []
    for lr in lrs:
        name = f"{arm.name} lr {lr:g}{' whole' if whole else ''}"
        folder = plan.output / "tuning" / arm.name / f"{'whole_' if whole else ''}lr_{named(lr)}"
        found.append(Training(arm, Run(Control(name), TUNING_SEED, folder), lr, 0.0, steps))
    return found


def weights(plan: Plan, arm: Arm, lr: float, lambdas: Sequence[float]) -> list[Training]:
    """A sweep of an arm's λ, at its learning rate."""
    steps = max(round(LENGTH * plan.sizes.steps), 1)
    found = []
    for weight in lambdas:
        name = f"{arm.name} λ {weight:g}"
        folder = plan.output / "tuning" / arm.name / f"weight_{named(weight)}"
        found.append(Training(arm, Run(Control(name), TUNING_SEED, folder), lr, weight, steps))
    return found


def finals(
    plan: Plan, lrs: Mapping[str, float], lambdas: Mapping[str, float], pace: Mapping[str, float]
) -> list[Training]:
    """Every arm with every seed, seed by seed: whatever is there when the command is stopped can be compared.

    Args:
        lrs: arm → learning rate, of those that were tuned.
        lambdas: arm → λ, of those with a coherent loss.
        pace: arm of the line ``seconds`` → its seconds a step over the baseline's.
    """
    found = []
    for seed in plan.seeds:
        for arm in plan.design.arms.values():
            steps = max(round(plan.sizes.steps / pace.get(arm.name, 1.0)), 1)
            run = Run(Control(arm.name), seed, plan.output / arm.name / f"seed_{seed}")
            found.append(Training(arm, run, lrs[arm.tuning], lambdas.get(arm.name, 0.0), steps))
    return found


def command(plan: Plan, training: Training, matched: WaveConfig, python: Sequence[str]) -> list[str]:
    """Write the configuration of a run beside its folder, and return the command line that starts it.

    Args:
        matched: the arm's configuration at the size of MLP that gives it as many parameters as the baseline.
        python: the words before ``fit``.
    """
    config = replace(matched, optimizer=replace(matched.optimizer, lr=training.lr))
    if training.arm.terms:
        config = replace(config, loss=coherence(training.arm, training.weight))
    seed, steps = training.run.seed, training.steps
    arguments = json.loads(json.dumps(config.to_dict()))
    for name in ("vocab_size", "context"):  # the data's
        del arguments[name]
    arguments |= {"warmup_steps": max(steps // 10, 1), "seed": seed}
    whole = {
        "seed_everything": seed,
        "model": {"class_path": "wavegpt.WaveLM", "init_args": arguments},
        "data": {"class_path": "datamodules.TextDataModule", "init_args": {**plan.data(), "order_seed": seed}},
        "trainer": {
            "max_steps": steps, "max_epochs": -1, "devices": 1, "gradient_clip_val": 1.0, "val_check_interval": steps,
            "check_val_every_n_epoch": None, "num_sanity_val_steps": 0, "log_every_n_steps": max(steps // 20, 1),
        },
        "report": {"figures": False},
    }  # fmt: skip
    file = training.run.folder.with_suffix(".yaml")
    write_text(file, yaml.safe_dump(whole, sort_keys=False, allow_unicode=True))
    words = [*python, "fit", "--config", str(file)]
    return [*words, *(f"--{name}={value}" for name, value in plan.options), "--output", str(training.run.folder)]


def levels_of(name: str) -> tuple[int, ...] | None:
    """0 or 1 of each factor for an arm of the factorial; None for others.

    >>> levels_of("wave-rope-adamw-coherent")
    (1, 0, 0, 1)
    """
    words = name.split("-")
    if len(words) != len(FACTORS) or any(w not in levels for w, levels in zip(words, FACTORS.values(), strict=True)):
        return None
    return tuple(levels.index(w) for w, levels in zip(words, FACTORS.values(), strict=True))


def planned(plan: Plan) -> Iterator[str]:
    """The plan in lines of text: what is compared, before anything is trained."""
    sizes, arms = plan.sizes, plan.design.arms
    n_tuning = len(plan.tuned) * len(grid(1.0)) + sum(bool(arm.terms) for arm in arms.values()) * len(WEIGHTS)
    yield (
        f"{len(arms)} arms × {len(plan.seeds)} seeds = {len(arms) * len(plan.seeds)} runs of {sizes.steps:,} steps × "
        f"{sizes.batch_tokens:,} tokens, after {n_tuning} runs of a quarter of that, and three or more whole ones for "
        f"each of {len(plan.tuned)} arms, to choose learning rates and λ"
    )
    if plan.design.factorial:
        yield f"factorial: {' × '.join(f'{name} {{{low}, {high}}}' for name, (low, high) in FACTORS.items())}"
    for line in plan.design.lines:
        members = plan.design.of_line(line)
        for reference in dict.fromkeys(arm.reference for arm in members):
            names = ", ".join(arm.name for arm in members if arm.reference == reference)
            yield f"{line}: {names}, against {reference}"


def make(
    scale: str, seeds: tuple[int, ...], factorial: bool, lines: tuple[str, ...] | None, changes: Mapping[str, Any],
    corpus: str, tokenizer: str, options: Options, held_out: float, output: Path,
    only: tuple[str, ...] = (),
) -> Plan:  # fmt: skip
    """A plan by the name of its scale.

    Args:
        changes: of its sizes.
        only: arms of the lines to leave the others out; empty: all.

    Raises:
        ValueError: an arm cannot be built at this size.
    """
    named_scale = SCALES[scale]
    sizes = replace(named_scale.sizes, **changes)
    chosen = named_scale.lines if lines is None else lines
    return Plan(sizes, design(sizes, factorial, chosen, only), seeds, corpus, tokenizer, options, held_out, output)
