"""What is in the wheel, and that it works without the checkout: in an empty environment, in a user's own project.

Minutes, most of them spent on installing torch; the package index is the one that pip is set up for.
"""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from scripts.dist import complaints, copy_sources
from tests.project.test_any_project import EXAMPLE, users_project

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
TYPED = """
from modulators import FieldModulator, attach, load_t5, relational_lift, stream_of

model, tokenizer = load_t5("mini")
handle = attach(model, FieldModulator(stream_of(model.config)))
reveal_type(handle)
reveal_type(handle.summary().alphas)
reveal_type(relational_lift(model, tokenizer, handle))
"""


BUILD = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution, built from git's files with the setuptools of here."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    source = copy_sources(tmp_path_factory.mktemp("source"))
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return source / "dist"


@pytest.fixture(scope="module")
def python(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel, its requirements, and nothing else."""
    place = tmp_path_factory.mktemp("installed") / "env"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    interpreter = place / "bin" / "python"
    words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(ROOT / "constraints.txt")]
    words += map(str, distributions.glob("*.whl"))
    done = subprocess.run([str(interpreter), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return interpreter


def run(program: Path, *argv: str, cwd: Path) -> str:
    """What a program of the environment prints, with nothing in HOME."""
    home = cwd / "home"
    home.mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHONPATH", "XDG_"))}
    environment["HOME"] = str(home)
    done = subprocess.run([str(program), *argv], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_distributions_hold_what_git_holds(distributions: Path) -> None:
    assert not complaints(distributions)


def test_what_a_distribution_lacks_or_has_too_much_is_named(distributions: Path, tmp_path: Path) -> None:
    (built,) = distributions.glob("*.whl")
    shutil.copy(next(distributions.glob("*.tar.gz")), tmp_path)
    with zipfile.ZipFile(built) as whole, zipfile.ZipFile(tmp_path / built.name, "w") as other:
        for name in whole.namelist():
            if name != "modulant/py.typed":
                other.writestr(name, whole.read(name))
        other.writestr("tests/project/test_house.py", "")
    assert complaints(tmp_path) == [
        f"{built.name}: lacks modulant/py.typed",
        f"{built.name}: holds tests/project/test_house.py",
    ]


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


def test_commands_are_installed(python: Path, tmp_path: Path) -> None:
    """… under the names of `[project.scripts]`, and of the version that `pyproject.toml` has."""
    assert run(python.parent / "modulant", "--version", cwd=tmp_path).split()[-1] == PROJECT["version"]
    assert "similarity" in run(python.parent / "modulant-probe", "--help", cwd=tmp_path)


def test_types_are_seen(python: Path, tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    words = ["-m", "mypy", "--strict", "--python-executable", str(python), "--cache-dir", str(tmp_path), "typed.py"]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    for revealed in ("modulators.hooks.ModulatorHandle", "list[list[float]]", "dict[str, float]"):
        assert f'Revealed type is "{revealed}"' in done.stdout.replace("builtins.", ""), done.stdout
    assert done.returncode == 0, done.stdout
