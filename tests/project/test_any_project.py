"""The library inside a user's project whose own packages have the names of ours, as most Lightning projects have.

`test_installed.py` runs the README's lines as they are, over the whole WordNet, in such a project.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import ROOT, small_wordnet

# What a user may have: names of our other packages, and of folders of `modulant`.
THEIRS = "metrics callbacks datamodules configs probes cli assets storage geometry lexicon pages".split()
EXAMPLE = ROOT / "docs" / "examples" / "library.py"

# Every name and module is imported, so that nothing is left that a later call would import.
EVERYTHING = """
import pkgutil, sys
import modulant, modulators
for package in (modulant, modulators):
    for name in getattr(package, "__all__", ()):
        getattr(package, name)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        __import__(module.name)
theirs = [name for name in THEIRS if name in sys.modules]
assert not theirs, f"imported by the library: {theirs}"
for name in THEIRS:
    assert sys.path[0] in __import__(name).__file__, name
"""


def users_project(folder: Path) -> Path:
    """A folder with an empty package of each name, which wins over ours: a script's own folder is searched first."""
    for name in THEIRS:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
    return folder


def run(folder: Path, script: str) -> list[str]:
    """The lines that a script in the folder prints, with the checkout behind the folder on the path."""
    (folder / "script.py").write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(folder / "script.py")],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith("compiling")]  # WordNet, the first time


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return users_project(tmp_path / "project")


def test_the_readmes_lines_and_an_artefact_on_a_small_wordnet(project: Path) -> None:
    """The lift of the ten lines, and the same of the saved and loaded modulator."""
    call = "relational_lift(model, tokenizer, handle)"
    example = EXAMPLE.read_text(encoding="utf-8")
    assert call in example
    small = f"{call[:-1]}, bootstrap=40, nltk_data={str(small_wordnet(project / 'nltk_data'))!r})"
    again = small.replace("(model, tokenizer, handle", "(*load_modulated('saved')")
    saved = f"""
from modulators import load_modulated, save_modulator
save_modulator(handle.modulator, "saved", "mini", handle.layers)
assert {again} == lift
"""
    *texts, lift = run(project, example.replace(call, small) + saved + f"THEIRS = {THEIRS!r}" + EVERYTHING)
    assert texts[-1] == "sada", "the original T5's answer"
    assert lift.count(",") == 1


def test_importing_the_library_imports_nothing_large(project: Path) -> None:
    (said,) = run(project, "import sys, modulators, modulant, modulant.metrics; print(*sys.modules)")
    loaded = {name.split(".")[0] for name in said.split()}
    assert not loaded & {"torch", "lightning", "transformers", "numpy", "numba", "nltk", "scipy", *THEIRS}
