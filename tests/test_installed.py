"""An empty environment, `pip install`, a project of a user's own: the package works without the checkout.

Minutes, most of them spent on installing torch; the package index is the one that pip is set up for.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_any_project import EXAMPLE, users_project

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
TYPED = """
from modulators import FieldModulator, attach, load_t5, relational_lift, stream_of

model, tokenizer = load_t5("mini")
handle = attach(model, FieldModulator(stream_of(model.config)))
reveal_type(handle)
reveal_type(handle.summary().alphas)
reveal_type(relational_lift(model, tokenizer, handle))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with this package, its requirements, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    source, place = folder / "source", folder / "env"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in os.fsdecode(listed.stdout).split("\0")[:-1]:  # building leaves things beside the sources
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    interpreter = place / "bin" / "python"
    words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", "constraints.txt", "."]
    done = subprocess.run([str(interpreter), *words], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return interpreter


def run(python: Path, *argv: str, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([str(python), *argv], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_only_these_names_are_installed(python: Path, tmp_path: Path) -> None:
    program = "from importlib.metadata import files; print(*{path.parts[0] for path in files('modulant')})"
    names = {name for name in run(python, "-c", program, cwd=tmp_path).split() if not name.endswith(".dist-info")}
    names -= {"..", "__pycache__"}  # the commands, and the bytecode of train.py and probe.py
    assert names == {"callbacks", "cli", "configs", "datamodules", "modulant", "modulators", "probe.py", "probes",
                     "train.py", "wavegpt"}  # fmt: skip


def test_ten_lines_from_text_to_lift(python: Path, tmp_path: Path) -> None:
    """In a project whose packages have the names of ours."""
    script = users_project(tmp_path) / "library.py"
    script.write_bytes(EXAMPLE.read_bytes())
    said = run(python, script.name, cwd=tmp_path).splitlines()
    modulated, original, lift = (line for line in said if not line.startswith("compiling"))  # WordNet, the first time
    assert modulated
    assert original == "sada"
    assert lift.count(",") == 1


def test_training_needs_no_checkout(python: Path, tmp_path: Path) -> None:
    """The configurations are in the package too."""
    words = ["-m", "train", "fit", "--config", "field.yaml", "--trainer.max_steps", "1", "--output", "run"]
    run(python, *words, "--relational.bootstrap", "0", "--relational.baselines", "false", cwd=tmp_path)
    assert (tmp_path / "run" / "modulator" / "modulator.safetensors").is_file()
    assert "usage" in run(python, "-m", "probe", "--help", cwd=tmp_path)


def test_types_are_seen(python: Path, tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    words = ["-m", "mypy", "--strict", "--python-executable", str(python), "--cache-dir", str(tmp_path), "typed.py"]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    for revealed in ("modulators.hooks.ModulatorHandle", "list[list[float]]", "dict[str, float]"):
        assert f'Revealed type is "{revealed}"' in done.stdout.replace("builtins.", ""), done.stdout
    assert done.returncode == 0, done.stdout
