"""The plan: what differs between arms and what does not, and its errors."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from probe import main
from probes.waves.arms import BASELINE, FACTORS, LINES, WAVE, design
from probes.waves.matching import matched, pace, parameters, unmatched
from probes.waves.plan import SCALES, levels_of, make
from probes.waves.tuning import WEIGHTS, grid, named

ALL = tuple(LINES)


@pytest.mark.parametrize("scale", SCALES)
def test_every_arm_has_the_baselines_parameters(scale: str) -> None:
    sizes = SCALES[scale].sizes
    if scale == "large":
        sizes = replace(sizes, layers=2)  # each layer alike
    arms = design(sizes, True, ALL).arms
    total = parameters(arms[BASELINE].config)["total"]
    totals = {name: parameters(matched(arm.config, total))["total"] for name, arm in arms.items()}
    assert unmatched(totals, BASELINE) == []


def test_arms_differ_in_what_they_are_named_for() -> None:
    found = design(SCALES["cpu"].sizes, True, ALL)
    cells = [name for name in found.arms if levels_of(name)]
    assert len(cells) == 2 ** len(FACTORS)
    for line in ALL:
        for arm in found.of_line(line):
            reference = found.arms[arm.reference]
            if line in ("mass", "phase", "terms", "optimizer"):
                part = {"mass": "embedding", "optimizer": "optimizer"}.get(line, "attention")
                assert getattr(arm.config, part) != getattr(reference.config, part)
                same = {part: getattr(reference.config, part)}
                assert replace(arm.config, **same) == reference.config
    assert found.arms[f"seconds-{WAVE}"].config == found.arms[WAVE].config


def test_lines_without_the_factorial_have_their_references() -> None:
    found = design(SCALES["cpu"].sizes, False, ("phase", "seconds"))
    assert {arm.reference for arm in found.arms.values()} - {""} <= found.arms.keys()
    assert {arm.tuning for arm in found.arms.values()} <= found.arms.keys()
    assert len(found.arms) == 4 + 7 + 3


def test_a_coherent_arm_has_the_learning_rate_of_its_pair() -> None:
    arms = design(SCALES["cpu"].sizes, True, ()).arms
    assert arms["wave-rope-projected-coherent"].tuning == "wave-rope-projected-ce"
    assert sum(bool(arm.terms) for arm in arms.values()) == 8


def test_folders_have_no_dots() -> None:
    values = [*grid(4e-3), *grid(0.4), *WEIGHTS, 0.0125]
    names = [named(value) for value in values]
    assert not any("." in name for name in names)
    assert len(set(names)) == len(set(values))


def test_a_step_of_twice_the_layers_takes_longer() -> None:
    config = design(SCALES["cpu"].sizes, False, ("phase",)).arms[BASELINE].config
    taken = pace({"one": config, "more": replace(config, layers=8)}, "one", 4, torch.device("cpu"))
    assert taken["one"] == 1
    assert 1.5 < taken["more"] < 8


def test_the_plan_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["waves", "--plan", "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "35 arms × 5 seeds = 175 runs of 400 steps" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--heads", "3"], "d_model is 64, which 3 heads do not divide"),
        (["--lines", "masss"], "mass"),
        (["--lines", "mass,none"], "none"),
        (["--arms", "mass-shufled"], "did you mean mass-shuffled?"),
        (["--no-factorial", "--lines", "none"], "--no-factorial: nothing is compared"),
        (["--corpus", "/nowhere.txt"], "/nowhere.txt"),
        (["--held-out", "0.6"], "0.6"),
        (["--batch-tokens", "100"], "context"),
        (["--seeds", "1,1"], "seeds"),
        (["--steps", "0"], "steps"),
        (["--stepz", "5"], "stepz"),
        (["--output", __file__], "test_plan.py"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["waves", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert not list(tmp_path.iterdir())


def test_other_settings_need_another_folder(tmp_path: Path) -> None:
    from probes.waves.command import Experiment
    from probes.waves.plan import RECORD

    def plan(steps: int) -> Experiment:
        return Experiment(make("cpu", (0,), True, None, {"steps": steps}, "wordnet", "bpe", (), 0.02, tmp_path), 1, 0)

    plan(400)._note(settings=plan(400).plan.settings)
    assert (tmp_path / RECORD).is_file()
    plan(400)
    with pytest.raises(ValueError, match="have steps 400, not 500; name another --output"):
        plan(500)


@pytest.mark.parametrize(
    ("outcome", "reason", "metrics", "bits"),
    [
        ("finished", "max_steps (4) reached", {"first": 4.0, "last": 2.5}, 2.5),
        ("interrupted", "interrupted by SIGTERM", {"first": 4.0}, math.nan),
        ("failed", "DivergenceError: the gradient is not finite", {"first": 4.0}, math.inf),
        ("failed", "RuntimeError: no memory", {"first": 4.0}, math.nan),
    ],
)
def test_what_a_run_has_found(
    outcome: str, reason: str, metrics: dict[str, float], bits: float, tmp_path: Path
) -> None:
    from probes.waves.command import Experiment
    from probes.waves.plan import rates

    plan = make("cpu", (0,), True, (), {}, "wordnet", "bpe", (), 0.02, tmp_path)
    [training] = rates(plan, plan.design.arms[BASELINE], [4e-3])
    found = Experiment(plan, 1, 0)
    assert math.isnan(found.bits(training))
    training.run.folder.mkdir(parents=True)
    run = {"stage": "fit", "outcome": outcome, "metrics": {"val/bits_per_byte": metrics}}
    (training.run.folder / "report.json").write_text(json.dumps({"run": run, "stop": {"reason": reason}}))
    assert found.bits(training) == pytest.approx(bits, nan_ok=True)
