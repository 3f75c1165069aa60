"""What a command line says, and which folder it will write to."""

import os
from pathlib import Path

import pytest
import yaml

from cli.check import check
from cli.command import Command, read_command
from cli.configuration.files import CONFIGS, find_config
from cli.folder import VARIABLE, RunFolder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (VARIABLE, "TORCHELASTIC_RUN_ID", "SLURM_PROCID", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def command(*argv: str) -> Command:
    return read_command(["fit", *argv])


def test_options_come_after_every_config() -> None:
    said = command("--model.lr", "1", "-c", "field.yaml", "--trainer.devices=2", "--config=lerp", "--output", "x")
    assert [config.path for config in said.configs] == [CONFIGS / "field.yaml", CONFIGS / "lerp.yaml"]
    assert said.options == (("model.lr", "1"), ("trainer.devices", "2"))
    assert said.output == Path("x")


def test_a_file_here_goes_before_one_in_configs() -> None:
    assert find_config("field.yaml") == CONFIGS / "field.yaml"
    assert find_config("field") == CONFIGS / "field.yaml"
    Path("field.yaml").write_text("{}")
    assert find_config("field.yaml") == Path("field.yaml")


def test_output_may_stand_in_a_config() -> None:
    Path("a.yaml").write_text("output: there\n")
    assert command("--config", "a.yaml").output == Path("there")
    assert command("--config", "a.yaml", "--output", "here").output == Path("here")


def test_resume_takes_the_runs_own_config() -> None:
    Path("run").mkdir()
    Path("run/config.yaml").write_text("{}")
    assert [config.path for config in command("--resume", "run").configs] == [Path("run/config.yaml")]
    assert [config.path for config in command("--resume", "run", "--config", "field").configs] == [
        Path("run/config.yaml"),
        CONFIGS / "field.yaml",
    ]


@pytest.mark.parametrize(
    ("path", "name"),
    [("mine.yaml", "mine"), ("runs/field/version_3/config.yaml", "field"), ("somewhere/config.yaml", "somewhere")],
)
def test_default_folder_is_named_after_the_first_config(path: str, name: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("{}")
    assert RunFolder(command("--config", path, "--config", "debug")).claim().parent == Path("runs") / name


def test_versions_count_up() -> None:
    for n in (0, 1, 2):
        assert RunFolder(command("--config", "field")).claim() == Path(f"runs/field/version_{n}")
    Path("runs/field/version_9").mkdir()
    assert RunFolder(command("--config", "field")).claim().name == "version_10"


def test_an_empty_folder_is_taken_back() -> None:
    folder = RunFolder(command("--config", "field"))
    folder.claim()
    (folder.path / "config.yaml").touch()
    (folder.path / "tensorboard").mkdir()
    folder.discard_if_empty()
    assert not Path("runs").exists()


def test_a_folder_with_anything_in_it_stays() -> None:
    folder = RunFolder(command("--config", "field"))
    (folder.claim() / "metrics.csv").touch()
    folder.discard_if_empty()
    assert (folder.path / "metrics.csv").is_file()


def test_a_folder_that_was_there_stays() -> None:
    Path("mine").mkdir()
    folder = RunFolder(command("--config", "field", "--output", "mine"))
    folder.claim()
    folder.discard_if_empty()
    assert Path("mine").is_dir()


def test_only_a_child_process_takes_over_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(command("--config", "field"))
    folder.claim()
    assert os.environ[VARIABLE] == f"{os.getpid()}:{folder.path}"
    # in the same process, or with the variable of somebody else's run: a folder of its own
    assert RunFolder(command("--config", "field")).claim().name == "version_1"
    monkeypatch.setenv(VARIABLE, f"{os.getppid() + 1}:{folder.path}")
    assert RunFolder(command("--config", "field")).claim().name == "version_2"
    monkeypatch.setenv(VARIABLE, f"{os.getppid()}:{folder.path}")
    assert RunFolder(command("--config", "field")).claim() == folder.path
    folder.release()


def test_release_takes_the_variable_away() -> None:
    folder = RunFolder(command("--config", "field"))
    folder.claim()
    folder.release()
    assert VARIABLE not in os.environ


def test_a_launchers_processes_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job7")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert RunFolder(command("--config", "field")).claim() == Path("runs/field/version_job7")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(ValueError, match="--output: torchrun's processes need one folder"):
        RunFolder(command("--config", "field")).claim()
    assert RunFolder(command("--config", "field", "--output", "mine")).claim() == Path("mine")


def test_a_configuration_beside_resume_is_merged_over_the_runs_own(tmp_path: Path) -> None:
    """Whether it names a model or not; one that does can stand alone where the run has lost its own."""
    (tmp_path / "config.yaml").write_text("model: {class_path: modulators.ModulatedT5}\n")

    def names(*configs: str) -> list[str]:
        words = [word for config in configs for word in ("--config", config)]
        return [config.path.name for config in read_command(["fit", "--resume", str(tmp_path), *words]).configs]

    assert names() == ["config.yaml"]
    assert names("debug.yaml", "bf16.yaml") == ["config.yaml", "debug.yaml", "bf16.yaml"]
    assert names("t5_small.yaml") == ["config.yaml", "t5_small.yaml"]
    assert names("lerp.yaml", "debug.yaml") == ["config.yaml", "lerp.yaml", "debug.yaml"]
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(ValueError, match=r"has no config.yaml; name the run's configuration"):
        names("debug.yaml")
    assert names("lerp.yaml") == ["lerp.yaml"]


def test_resume_is_no_key_of_a_file() -> None:
    Path("a.yaml").write_text("resume: runs/field/version_0\n")
    with pytest.raises(ValueError, match=r"a.yaml: resume is an option of the command line, --resume DIR"):
        command("--config", "a.yaml")


def saved_run(*words: str) -> Path:
    """A run folder that could be resumed, as far as is looked before anything is imported."""
    run = Path("run")
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/step_00000006.ckpt").touch()
    config = check(read_command(["fit", "--config", "field.yaml", *words]))
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize(
    ("own", "changed", "line"),
    [
        ((), ("--data.seed", "7"), "data.seed is 7, and the run's own is 42"),
        ((), ("--data.val_fraction", "0.2"), "data.val_fraction is 0.2, and the run's own is 0.1"),
        ((), ("--data.matching", "all"), "data.matching is all, and the run's own is single_token"),
        ((), ("--data", "GlossDataModule"), "data is datamodules.GlossDataModule"),
        # field.yaml says each of these
        (("--data.seed", "7"), ("--config", "field.yaml"), "data.seed is 42, and the run's own is 7"),
        (("--data.val_fraction", "0.2"), ("--config", "field.yaml"), "data.val_fraction is 0.1"),
    ],
)
def test_what_decides_the_split_is_the_runs_own(
    subcommand: str, own: tuple[str, ...], changed: tuple[str, ...], line: str
) -> None:
    run = saved_run(*own)
    with pytest.raises(ValueError, match=r"entries that the run was trained on must not become held out") as caught:
        check(read_command([subcommand, "--resume", str(run), *changed]))
    assert str(caught.value).startswith(line)


def test_what_the_split_does_not_depend_on_is_merged_over_the_runs_own() -> None:
    run = saved_run("--data.seed", "7", "--model.lr", "5e-4", "--trainer.max_epochs", "3")
    Path("mine.yaml").write_text(
        "model: {class_path: modulators.ModulatedT5, init_args: {weight_decay: 0.5}}\ndata: {init_args: {seed: 7}}\n"
    )
    config = check(read_command(["fit", "--resume", str(run), "--config", "mine.yaml", "--data.order_seed", "3"]))
    assert config["model"]["init_args"]["lr"] == 5e-4
    assert config["model"]["init_args"]["weight_decay"] == 0.5
    assert config["model"]["init_args"]["modulator"]["class_path"] == "modulators.FieldModulator"
    assert (config["data"]["init_args"]["seed"], config["data"]["init_args"]["order_seed"]) == (7, 3)
    assert config["trainer"]["max_epochs"] == 3


def test_configurations_from_pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is read once; processes for further devices, which run the command line again, have it from the first."""
    monkeypatch.setenv("MODULANT_PIPED_CONFIG", "")
    ends = []
    for text in ("trainer: {max_epochs: 3}\n", "trainer: {max_steps: 4}\n"):
        reader, writer = os.pipe()
        os.write(writer, text.encode())
        os.close(writer)
        ends.append(reader)
    names = [f"/dev/fd/{end}" for end in ends]
    argv = [word for name in names for word in ("--config", name)]
    contents = [config.content for config in command(*argv).configs]
    assert contents == [{"trainer": {"max_epochs": 3}}, {"trainer": {"max_steps": 4}}]
    for end in ends:
        os.close(end)
    monkeypatch.setattr("os.getppid", os.getpid)
    assert [config.content for config in command(*argv).configs] == contents
    assert command(*argv).run_name() == "piped"
