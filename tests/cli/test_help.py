"""Help: quick, our own options first, every key of a configuration with its comment."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from cli.configuration.files import configurations
from cli.help import keys_of, wanted
from tests.cli.conftest import Call
from tests.runs import ROOT


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["fit", "--help"], ["fit", "--config", "lerp.yaml", "-h"]])
def test_a_page(call: Call, argv: list[str]) -> None:
    said = call(*argv)
    assert said.code == 0
    assert said.err == ""
    for option in ("--config", "--output", "--resume", "--debug"):
        assert option in said.out
    assert ("--model.modulator.n_geometric_dims 64" in said.out) == ("lerp.yaml" in argv)


def test_it_is_quick(tmp_path: Path) -> None:
    """Torch alone takes seconds to import; the page must not wait for it."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "train.py"), "fit", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--model.lr" in done.stdout
    assert not any(heavy in done.stderr for heavy in (" torch", "lightning", "transformers", "numpy"))
    assert time.monotonic() - began < 5


def test_all_options_are_there_when_asked_for(call: Call) -> None:
    said = call("validate", "--help", "all")
    assert said.code == 0
    assert "--trainer.limit_val_batches" in said.out


@pytest.mark.parametrize("path", sorted(configurations()), ids=lambda path: path.name)
def test_every_key_has_a_comment(path: Path) -> None:
    keys = keys_of(path)
    classes = [
        key for key, _ in keys if key.split()[0] in ("--model", "--data", "--model.modulator", "--model.objective")
    ]
    assert [key for key, comment in keys if not comment and key not in classes] == []
    assert len(keys) == _scalars(yaml.safe_load(path.read_text()))
    assert path.read_text().startswith("# ")


def _scalars(node: object) -> int:
    return sum(map(_scalars, node.values())) if isinstance(node, dict) else 1


def test_help_is_for_the_parser_when_all_is_asked_for() -> None:
    assert wanted(["fit", "--help", "all"]) is None
    assert wanted(["fit", "--config", "field"]) is None


@pytest.mark.parametrize(
    "words", [["train.py", "--help"], ["train.py", "--completion", "bash"], ["probe.py", "--help"]]
)
def test_whoever_reads_may_go_before_the_end(words: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, str(ROOT / words[0]), *words[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as asked:
        assert asked.stdout is not None
        assert asked.stderr is not None
        asked.stdout.close()
        assert asked.stderr.read() == b""
        assert asked.wait() == 0
