"""A configuration may come from a stranger: what it names is refused twice, by our own check and by the parser."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.check import check
from cli.command import read_command

FIELD = ("fit", "--config", "field.yaml")
NAMES = (
    "builtins.eval",
    "os.system",
    "subprocess.Popen",
    "torch.load",
    "torch.hub.load",
    "lightning.pytorch.callbacks.LambdaCallback",
    "lightning.pytorch.Trainer",
    "modulators.artifact.pretrained.load_modulated",
    "jsonargparse.set_parsing_settings",
)
# Keys at which a class is built, or may be, with what stands around it.
PLACES: dict[str, Callable[[Any], Any]] = {
    "model": lambda stranger: stranger,
    "model.modulator": lambda stranger: stranger,
    "data": lambda stranger: stranger,
    "trainer.callbacks": lambda stranger: [stranger],
    "trainer.logger": lambda stranger: stranger,
    "trainer.plugins": lambda stranger: [stranger],
    "trainer.profiler": lambda stranger: stranger,
    "trainer.strategy": lambda stranger: {
        "class_path": "lightning.pytorch.strategies.DDPStrategy",
        "init_args": {"cluster_environment": stranger},
    },
}


def late(*argv: str) -> None:
    """The parser alone, as if nothing had been checked before: options go to it as they were typed."""
    from cli.folder import RunFolder
    from cli.running.parser import prepare
    from cli.running.run import ModulantCLI

    command = read_command(argv)
    prepare(())
    folder = RunFolder(command)
    typed = [f"--config={config.path}" for config in command.configs]
    try:
        ModulantCLI.build(["fit", *typed, *(f"--{name}={value}" for name, value in command.options)], command, folder)
    except BaseException:
        folder.discard_if_empty()
        raise


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a module that tells when it is imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stranger.py").write_text("open('was-imported', 'w')\nclass Foo: ...\ndef foo(*_): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def refused(run: Callable[..., None], *argv: str) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        run(*argv)
    assert not Path("was-imported").exists()
    assert not Path("runs").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def early(*argv: str) -> None:
    check(read_command(argv))


@pytest.mark.parametrize("place", PLACES)
def test_a_class_in_every_place(place: str) -> None:
    for name in ("stranger.Foo", *NAMES):
        value = json.dumps(PLACES[place]({"class_path": name, "init_args": {"f": "x"}}))
        assert name in refused(early, *FIELD, f"--{place}", value)
    for name in ("stranger.Foo", "os.system", "lightning.pytorch.callbacks.LambdaCallback"):
        value = json.dumps(PLACES[place]({"class_path": name, "init_args": {"f": "x"}}))
        refused(late, *FIELD, f"--{place}", value)


@pytest.mark.parametrize("run", [early, late], ids=["early", "late"])
@pytest.mark.parametrize("name", ["stranger.foo", "os.system", "torch.load"])
def test_a_function_to_be_called(run: Callable[..., None], name: str) -> None:
    strategy = {"class_path": "lightning.pytorch.strategies.DDPStrategy", "init_args": {"ddp_comm_hook": name}}
    assert name in refused(run, *FIELD, "--trainer.strategy", json.dumps(strategy))
    refused(run, *FIELD, "--trainer.callbacks+", name)
    Path("mine.yaml").write_text(f"trainer:\n  logger:\n    - {name}\n")
    refused(run, *FIELD, "--config", "mine.yaml")


@pytest.mark.parametrize("run", [early, late], ids=["early", "late"])
def test_inside_a_files_mapping(run: Callable[..., None]) -> None:
    """A value may be the name of a file that holds it."""
    Path("inner.yaml").write_text("class_path: stranger.Foo\n")
    for place in ("model", "model.modulator", "data", "trainer.logger", "trainer.callbacks"):
        refused(run, *FIELD, f"--{place}", "inner.yaml")


def test_tags_build_nothing() -> None:
    tag = "!!python/object/apply:os.system ['touch was-imported']"
    for text in (f"model: {tag}\n", f"trainer:\n  callbacks: {tag}\n", f"seed_everything: {tag}\n", f"{tag}\n"):
        Path("mine.yaml").write_text(text)
        assert "mine.yaml, line" in refused(early, *FIELD, "--config", "mine.yaml")
    for key in ("model", "model.lr", "trainer.callbacks", "trainer.logger", "seed_everything"):
        refused(early, *FIELD, f"--{key}", tag)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\n"
        + "".join(f"{c}: &{c} [{', '.join(['*' + p] * 9)}]\n" for p, c in zip("abcdef", "bcdefg", strict=True)),
        "a: &a [*a]\n",
        "trainer: &t\n  callbacks: *t\n",
        "a: " + "[" * 2000,
        "a: " + "9" * 5000,
        "a: 2001-99-99\n",
        "a: " + "x" * 2**20,
        "a: \x00\n",
    ],
    ids=["laughs", "loop", "loop of keys", "deep", "long number", "no date", "large", "null byte"],
)
def test_yaml_that_wears_out_its_reader(text: str) -> None:
    Path("mine.yaml").write_text(text)
    assert len(refused(early, *FIELD, "--config", "mine.yaml")) < 400


def test_options_that_wear_out_their_reader() -> None:
    for value in ("[" * 2000, "9" * 5000, "[&a [*a]]", "{a: &a {b: *a}}"):
        for key in ("model.lr", "trainer.callbacks"):
            assert len(refused(early, *FIELD, f"--{key}", value)) < 400
