"""The command of the controls before anything runs: what it was asked for, which runs that makes, what it remembers."""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import probe
from cli.check import check
from cli.command import read_command
from probes.configurations import leaves
from probes.controls import command as controls
from probes.controls.plan import Record, Run, State, command, lock, runs_of, state_of
from probes.controls.progress import Display, position
from probes.controls.runner import share
from probes.controls.settings import CONTROLS, OVERLAYS, Control, Request, read

ROOT = Path(__file__).parents[3]


def parsed(*words: str) -> argparse.Namespace:
    parser = probe.Parser(allow_abbrev=False)
    controls.add_arguments(parser)
    args, args.options = parser.parse_known_args(words)
    return args


def request(*words: str) -> Request:
    return read(parsed(*words))


def words_of(one: Request, control: str, seed: int = 0, seeded: tuple[str, ...] = ("seed_everything",)) -> list[str]:
    run = next(run for run in runs_of(one, Path("out")) if (run.control.name, run.seed) == (control, seed))
    return command(one, run, seeded, 1234)


GEOMETRY = ["shuffled", "random", "part_of_speech", "no_geometry", "training_anchors"]
TAXONOMY = ["taxonomy_shuffled", "taxonomy_part_of_speech", "taxonomy_random"]
FEATURES = ["features_linear", "features_random", "features_constant", "gate_source"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["lerp.yaml", "lemma.yaml"], [*GEOMETRY, "fixed_alpha", "lora"]),
        (["field.yaml", "lemma.yaml"], [*FEATURES, "fixed_alpha", "lora", "ia3"]),
        (["field.yaml", "lemma.yaml", "controls/gate_source.yaml"], ["fixed_alpha", "lora", "ia3"]),
        (["lerp.yaml"], [*TAXONOMY, *GEOMETRY, "fixed_alpha", "lora", "lora_slow", "full"]),
        (["field.yaml", "relational.yaml"], [*TAXONOMY, *FEATURES, "fixed_alpha", "lora", "ia3", "full"]),
    ],
)
def test_by_default_all_controls_that_apply(words: list[str], names: list[str]) -> None:
    one = request(*(part for word in words for part in ("--config", word)))
    assert [control.name for control in one.controls] == [words[0][:-5], *names]
    assert one.seeds == (0, 1, 2)
    assert one.controls[0].configs == ()


def test_every_overlay_is_a_control() -> None:
    assert {path.stem for path in OVERLAYS.glob("*.yaml")} == set(CONTROLS)


def test_a_front_is_of_the_treatment_and_the_methods_in_its_place() -> None:
    configs = ["--config", "lerp.yaml", "--config", "relational.yaml"]
    one = request(*configs, "--controls", "taxonomy_shuffled,lora,full", "--keep", "0,3")
    names = [f"{name}_keep_{keep}" for keep in ("0", "3") for name in ("lerp", "lora", "full")]
    assert [control.name for control in one.controls] == ["lerp", "taxonomy_shuffled", "lora", "full", *names]
    words = words_of(one, "lora_keep_3")
    assert "--model.objective.init_args.keep=3" in words
    assert "--model.n_parameters=1234" in words
    assert not any("n_parameters" in word for word in words_of(one, "full_keep_3"))


@pytest.mark.parametrize("kind", ["Encoder", "CausalLM"])
def test_methods_are_trained_on_the_kind_of_backbone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line of each passes the check of train.py, which refuses what a class does not know."""
    monkeypatch.chdir(tmp_path)
    config = (ROOT / "configs" / "encoder.yaml").read_text().replace("ModulatedEncoder", f"Modulated{kind}")
    Path("mine.yaml").write_text(config)
    one = request("--config", "mine.yaml", "--keep", "3", "--model.weight_decay", "0.5")
    assert [control.name for control in one.controls] == [
        "mine", *TAXONOMY, *FEATURES, "fixed_alpha", "lora", "ia3", "full", *(f"{name}_keep_3" for name in
        ("mine", "lora", "ia3", "full")),
    ]  # fmt: skip
    for control in one.controls:
        if control.method:
            model = check(read_command(words_of(one, control.name)[2:]))["model"]
            assert model["class_path"] == f"modulators.{'Tuned' if control.method == 'full' else 'Adapted'}{kind}"
            assert model["init_args"]["backbone"] == "all-MiniLM-L6-v2"
            assert model["init_args"]["weight_decay"] == 0.5
            assert model["init_args"].get("n_parameters") == (None if control.method == "full" else 1234)


def test_runs_go_seed_by_seed_the_treatment_first() -> None:
    one = request("--config", "lerp.yaml", "--seeds", "3,1", "--controls", "shuffled", "--alphas", "0.05")
    assert [run.name for run in runs_of(one, Path("out"))] == [
        "lerp seed 3", "shuffled seed 3", "alpha_0.05 seed 3", "lerp seed 1", "shuffled seed 1", "alpha_0.05 seed 1",
    ]  # fmt: skip


def test_a_command_line_of_a_control() -> None:
    one = request(
        "--config", "lerp.yaml", "--config", "debug.yaml", "--controls", "shuffled", "--trainer.max_epochs", "3"
    )
    words = words_of(one, "shuffled", 2, ("seed_everything", "model.geometry.seed"))
    assert words[1:3] == [str(ROOT / "train.py"), "fit"]
    configs = [words[i + 1] for i, word in enumerate(words) if word == "--config"]
    assert [Path(name).name for name in configs] == ["lerp.yaml", "debug.yaml", "shuffled.yaml"]
    assert "--trainer.max_epochs=3" in words
    assert words[words.index("--pentachoron.stop") + 1] == "false"
    assert words[-4:] == ["--seed_everything=2", "--model.geometry.seed=2", "--output", "out/shuffled/seed_2"]


def test_what_defines_a_control_wins_over_an_option() -> None:
    option = ("--model.modulator.init_args.initial_alpha", "0.1")
    one = request("--config", "field.yaml", "--controls", "fixed_alpha,lora", "--alphas", "0.5", *option)
    given = "--model.modulator.init_args.initial_alpha=0.1"
    assert given in words_of(one, "field")
    assert given not in words_of(one, "fixed_alpha")  # whose own is 0.29154
    fixed = words_of(one, "alpha_0.5")
    assert given not in fixed
    assert "--model.modulator.init_args.initial_alpha=0.5" in fixed
    assert "--model.modulator.init_args.alpha_max=1.0" in fixed
    adapted = words_of(one, "lora")  # which has no modulator to give it to
    assert not any("modulator" in word for word in adapted)
    assert "--model.n_parameters=1234" in adapted


def test_a_length_of_training_wins_over_an_option() -> None:
    one = request("--config", "field.yaml", "--controls", "lora", "--epochs", "5, 030", "--trainer.max_epochs", "3")
    assert [control.name for control in one.controls] == ["field", "lora", "epochs_5", "epochs_30"]
    epochs = {c.name: [w for w in words_of(one, c.name) if "max_epochs" in w] for c in one.controls}
    assert epochs == {
        name: [f"--trainer.max_epochs={n}"]
        for name, n in (("field", 3), ("lora", 3), ("epochs_5", 5), ("epochs_30", 30))
    }


def test_lerp_has_no_bounds_of_alpha() -> None:
    one = request("--config", "lerp.yaml", "--controls", "", "--alphas", "0.5")
    assert not any("alpha_max" in word for word in words_of(one, "alpha_0.5"))


WRONG = [
    ([], "--config is missing"),
    (["--config", "lrep.yaml"], "--config: no file lrep.yaml here or in configs/; did you mean lerp.yaml?"),
    (["--config", "pretrain_mini.yaml"], "configures no model.modulator; there are controls for LerpModulator"),
    (["--config", "lerp.yaml", "--controls", "shufled"], "'shufled' is no control; did you mean shuffled?"),
    (["--config", "lerp.yaml", "--controls", "lora,lora"], "--controls: lora is named twice"),
    (
        ["--config", "field.yaml", "--controls", "shuffled"],
        "shuffled does not apply to FieldModulator, which has no geometric embedding; these do: taxonomy_shuffled, ",
    ),
    (
        ["--config", "lerp.yaml", "--config", "lemma.yaml", "--controls", "taxonomy_shuffled"],
        "taxonomy_shuffled does not apply to this objective; add --config relational.yaml",
    ),
    (
        ["--config", "field.yaml", "--config", "controls/gate_source.yaml", "--controls", "features_linear"],
        "features_linear does not apply to FieldModulator, whose gates are not centred",
    ),
    (
        ["--config", "lerp.yaml", "--config", "lemma.yaml", "--keep", "1"],
        "--keep: it is a factor of model.objective RelationalObjective",
    ),
    (["--config", "lerp.yaml", "--keep", "-1"], "--keep: '-1' is no factor"),
    (["--config", "lerp.yaml", "--epochs", "5,0"], "--epochs: '0' is no length of training"),
    (["--config", "lerp.yaml", "--epochs", "2.5"], "--epochs: '2.5' is no length of training"),
    (["--config", "lerp.yaml", "--epochs", "5,05"], "--epochs: 5 is named twice"),
    (
        ["--config", "lerp.yaml", "--epochs", "5", "--trainer.max_steps", "9"],
        "--epochs: trainer.max_steps is 9, which bounds a training too",
    ),
    (
        ["--config", "lerp.yaml", "--epochs", "5,1", "--trainer.min_epochs=2"],
        "--epochs: 1 is below trainer.min_epochs, 2",
    ),
    (["--of", "runs/none", "--epochs", "5"], "--of: the run's own configuration and seeds are used"),
    (["--config", "lerp.yaml", "--seeds", "0,one"], "--seeds: 'one' is no seed"),
    (["--config", "lerp.yaml", "--seeds", "0,-1"], "--seeds: '-1' is no seed"),
    (["--config", "lerp.yaml", "--seeds", "1,1"], "--seeds: 1 is named twice"),
    (["--config", "lerp.yaml", "--alphas", "0.1,0.10"], "--alphas: 0.1 is named twice"),
    (["--config", "lerp.yaml", "--alphas", "1.5"], "--alphas: '1.5' is no injection strength"),
    (["--config", "lerp.yaml", "--alphas", "nan"], "--alphas: 'nan' is no injection strength"),
    (
        ["--config", "field.yaml", "--config", "controls/gate_source.yaml", "--alphas", "0.0005"],
        "--alphas: 0.0005 is not above model.modulator.alpha_min, 0.001",
    ),
    (["--config", "lerp.yaml", "--seed_everything", "3"], "--seed_everything cannot be given here: --seeds says it"),
    (["--config", "lerp.yaml", "--data.order_seed=3"], "--data.order_seed cannot be given here"),
    (["--config", "lerp.yaml", "--model.modulator.init_args.seed=3"], "seed cannot be given here: --seeds says it"),
    (["--config", "lerp.yaml", "--seed", "3"], "--seed is no option; did you mean --seeds?"),
    (["--config", "lerp.yaml", "--trainer.max_epochs"], "--trainer.max_epochs: a value is missing"),
    (["--config", "lerp.yaml", "shuffled"], "'shuffled' belongs to no option"),
    (["--config", "lerp.yaml", "--jobs", "0"], "--jobs: '0' must be an integer of at least 1"),
    (["--config", "lerp.yaml", "--jobs", "many"], "--jobs: 'many' must be an integer of at least 1"),
]


@pytest.mark.parametrize(("words", "line"), WRONG)
def test_what_is_wrong_is_one_line(
    words: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert probe.main(["controls", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert line in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_output_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for name, line in (("file", "as " + str(tmp_path / "file") + " is a file"), ("", "holds other files")):
        assert probe.main(["controls", "--config", "lerp.yaml", "--output", str(tmp_path / name)]) == 2
        assert line in capsys.readouterr().err


def test_probes_are_known_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["control"]) == 2
    assert "did you mean controls?" in capsys.readouterr().err
    assert probe.main([]) == 2
    assert "a probe is missing" in capsys.readouterr().err


def test_help_and_mistakes_need_no_torch() -> None:
    """As processes, and none of them may read torch or matplotlib; seconds are what that would cost."""
    code = (
        "import sys, probe\n"
        "try:\n    code = probe.main(sys.argv[1:])\nexcept SystemExit as e:\n    code = e.code\n"
        "assert not {'torch', 'matplotlib', 'numpy'} & sys.modules.keys()\nsys.exit(code)"
    )
    began = time.monotonic()
    for words, expected in ((["--help"], 0), (["controls", "--help"], 0), (["controls", "--config", "x.yaml"], 2)):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == expected, done.stderr
        if expected == 0:
            assert "python probe.py controls --config lerp.yaml" in done.stdout
    assert time.monotonic() - began < 10


def test_a_folder_remembers_its_settings(tmp_path: Path) -> None:
    first = request("--config", "lerp.yaml", "--controls", "shuffled", "--seeds", "0,1", "--trainer.max_epochs", "3")
    record = Record(tmp_path)
    record.check(first)
    record.write(first, {"lerp": {"seeded": []}})
    more = ["--config", "lerp.yaml", "--controls", "random", "--seeds", "2", "--alphas", "0.05"]
    record = Record(tmp_path)
    record.check(request(*more, "--trainer.max_epochs=3"))
    record.write(request(*more, "--trainer.max_epochs=3"), {})
    assert [run.control.name for run in Record(tmp_path).runs()][::3] == ["lerp", "shuffled", "random", "alpha_0.05"]
    assert [run.seed for run in record.runs()][:3] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"have trainer\.max_epochs 3, not 4; name another --output"):
        record.check(request(*more, "--trainer.max_epochs=4"))
    with pytest.raises(ValueError, match=r"have model\.lr 0\.005, not 1e-4, trainer\.max_epochs 3, not 15; name"):
        record.check(request(*more, "--model.lr=1e-4"))
    with pytest.raises(ValueError, match="is about lerp, not field"):
        record.check(request("--config", "field.yaml", "--trainer.max_epochs=3"))


def test_numbers_may_be_written_in_two_ways(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.write(request("--config", "lerp.yaml", "--model.lr", "0.0005"), {})
    record.check(request("--config", "lerp.yaml", "--model.init_args.lr", "5e-4"))


def test_two_commands_keep_out_of_each_others_way(tmp_path: Path) -> None:
    with lock(tmp_path / "out"), pytest.raises(ValueError, match="another command"):
        lock(tmp_path / "out")
    lock(tmp_path / "out").close()


def make_report(folder: Path, outcome: str, **more: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps({"run": {"stage": "fit", "outcome": outcome}} | more))


def test_the_state_of_a_run(tmp_path: Path) -> None:
    run = Run(Control("lerp"), 0, tmp_path / "lerp" / "seed_0")
    assert state_of(run) is State.FRESH
    make_report(run.folder, "interrupted")
    assert state_of(run) is State.FRESH  # there is nothing to go on from
    checkpoint = run.folder / "checkpoints" / "step_00000003.ckpt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"weights")
    (run.folder / "config.yaml").touch()
    assert state_of(run) is State.FRESH  # no digest
    digest = checkpoint.with_name(checkpoint.name + ".sha256")
    digest.write_text(f"{hashlib.sha256(b'weights').hexdigest()}  {checkpoint.name}\n")
    assert state_of(run) is State.BEGUN
    checkpoint.write_bytes(b"weighty")
    assert state_of(run) is State.FRESH  # damaged
    make_report(run.folder, "finished")
    assert state_of(run) is State.WHOLE
    (run.folder / "report.json").write_text('{"run": {')
    assert state_of(run) is State.FRESH


def test_where_a_run_is(tmp_path: Path) -> None:
    assert position(tmp_path) is None
    file = tmp_path / "metrics.csv"
    file.write_text("step,epoch,a\n0,,1\n9,0,1\n")
    assert position(tmp_path) == (0, 10)
    with file.open("a") as stream:
        stream.writelines(f"{step},{step // 100},{'1' * 500}\n" for step in range(1000))
        stream.write("1000,,1\n")
    assert position(tmp_path) == (9, 1001)


def test_what_remains(tmp_path: Path) -> None:
    runs = [Run(Control(name), 0, tmp_path / name / "seed_0") for name in ("lerp", "lora", "ia3")]
    resumed = runs[0].folder / "checkpoints" / "a.ckpt"  # half of its epochs are behind it
    resumed.parent.mkdir(parents=True)
    resumed.write_bytes(b"")
    resumed.with_name("a.ckpt.sha256").write_text(hashlib.sha256(b"").hexdigest())
    (runs[0].folder / "config.yaml").touch()
    (runs[0].folder / "metrics.csv").write_text("step,epoch,a\n9,1,1\n")
    display = Display(runs, 5, {"max_epochs": 2})
    assert display.remaining(60.0) is None
    display.started(runs[0])
    display.ended(runs[0], True, "")
    assert display.done == 3
    assert display.remaining(60.0) == pytest.approx(240.0)  # half a run a minute, and two to do
    display.started(runs[1])
    runs[1].folder.mkdir(parents=True)
    (runs[1].folder / "metrics.csv").write_text("step,epoch,a\n9,1,1\n")
    display.look([runs[1]], False)
    assert display.remaining(60.0) == pytest.approx(90.0)  # of which half is done, in the same minute


def test_cores_and_devices_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    cpu = {"accelerator": "auto", "devices": 1}

    def threads(jobs: int | None, runs: int, trainer: dict[str, Any]) -> tuple[int, str]:
        slots = share(jobs, runs, trainer)
        return len(slots), slots[0]["OMP_NUM_THREADS"]

    def devices(jobs: int | None, runs: int, trainer: dict[str, Any]) -> list[str | None]:
        return [slot.get("CUDA_VISIBLE_DEVICES") for slot in share(jobs, runs, trainer)]

    assert threads(None, 20, cpu) == (8, "1")
    assert threads(None, 3, cpu) == (3, "2")
    assert threads(2, 20, cpu) == (2, "4")
    assert threads(None, 20, {"accelerator": "cpu", "devices": 2}) == (4, "1")  # two processes a run
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads(1, 20, cpu) == (1, "1")  # whoever sets it knows of other work
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,3")
    assert devices(None, 20, cpu) == ["0", "1", "3"]
    assert devices(1, 1, {"accelerator": "cpu", "devices": 1}) == [None]
    assert devices(None, 20, {"accelerator": "cuda", "devices": 2}) == ["0,1"]
    assert devices(6, 6, cpu) == ["0", "1", "3"] * 2


def test_leaves_are_named_as_on_the_command_line() -> None:
    tree = {"model": {"class_path": "A", "init_args": {"modulator": {"class_path": "B", "init_args": {"seed": 1}}}}}
    assert leaves(tree) == {"model": "A", "model.modulator": "B", "model.modulator.seed": 1}
