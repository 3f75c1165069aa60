"""Completion: the script is run by bash itself, with the words that a user would have typed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from cli.completion import script
from tests.cli.conftest import Call

PROBES = ("controls", "talk")
_ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
case "$1" in python*) _modulant_python ;; *) _modulant ;; esac
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "modulant.bash"
    path.write_text(script("bash", PROBES))
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("modulant p", {"predict"}),
        ("modulant ", {"fit", "validate", "test", "predict", "--help", "--completion"}),
        ("python train.py f", {"fit"}),
        ("python3 /somewhere/train.py v", {"validate"}),
        ("python probe.py t", {"talk"}),
        ("modulant-probe c", {"controls"}),
        ("python other.py f", {"file.txt"}),
        ("modulant fit --config l", {"lemma.yaml", "lerp.yaml"}),
        ("modulant fit --config m", {"mine.yaml", "multi_node.yaml"}),
        ("modulant fit -c controls/ra", {"controls/random.yaml"}),
        ("modulant fit --model.la", {"--model.layers"}),
        ("modulant fit --model.backbone_dtype ", {"float32", "bfloat16"}),
        ("modulant fit --model.backbone_dtype = b", {"bfloat16"}),  # as bash cuts --key=value
        ("modulant fit --model.backbone_dtype =", {"float32", "bfloat16"}),
        ("modulant fit --model.compile r", {"reduce-overhead"}),
        ("modulant fit --model.modulator.alpha_bound c", {"clamp"}),
        ("modulant fit --pentachoron.stop t", {"true"}),
        ("modulant predict --prompt", {"--prompt"}),
        ("modulant fit --dry", {"--dry-run", "--dry-run=json"}),
        ("modulant fit --resume ru", {"runs"}),
    ],
)
def test_bash(file: Path, typed: str, offered: set[str], tmp_path: Path) -> None:
    for name in ("file.txt", "mine.yaml", "mine.txt"):
        (tmp_path / name).touch()
    (tmp_path / "runs").mkdir()
    words = ["bash", "--norc", "-c", _ASK, "ask", str(file), *typed.split(" ")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert set(done.stdout.split()) == offered


def test_the_command(call: Call) -> None:
    for shell, line in (("bash", "complete -F _modulant"), ("zsh", "bashcompinit"), ("fish", "complete -c modulant")):
        said = call("--completion", shell)
        assert (said.code, said.err) == (0, "")
        assert line in said.out
    assert "one of bash, zsh, fish" in call("--completion").err
    said = call("--completion", "tcsh")
    assert (said.code, said.out) == (1, "")
    assert "'tcsh' is not a known shell" in said.err
