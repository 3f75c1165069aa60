"""The house itself: what is listed, pinned and promised in one place agrees with what is there."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT: dict[str, Any] = PYPROJECT["project"]
SETUPTOOLS: dict[str, Any] = PYPROJECT["tool"]["setuptools"]
REQUIREMENTS = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def contracts(root: Path) -> subprocess.CompletedProcess[str]:
    """Check the import contracts of pyproject.toml on the packages under ``root``."""
    command = "from importlinter.cli import lint_imports_command as main; main(['--no-logo', '--no-cache'])"
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-c", command], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


def repository_files() -> list[Path]:
    """What git holds, or would on `git add`; outside a checkout there is nothing to say."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    paths = (ROOT / os.fsdecode(name) for name in listing.stdout.split(b"\0") if name)
    return [path for path in paths if path.is_file()]


def test_import_contracts_hold() -> None:
    result = contracts(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("modulant/geometry/up.py", "import modulant.metrics"),
        ("modulant/geometry/across.py", "import modulant.lexicon"),
        ("modulant/geometry/arrays.py", "import numpy"),
        ("modulant/lexicon/tensors.py", "import torch"),
        ("modulant/metrics/words.py", "from nltk.corpus import wordnet"),
        ("modulant/metrics/sideways.py", "import modulators"),
        ("modulators/trained.py", "import lightning.pytorch"),
        ("callbacks/model.py", "from transformers import T5Config"),
        ("callbacks/other_name.py", "import pytorch_lightning"),
        ("datamodules/top.py", "import train"),
        ("probes/across.py", "import callbacks"),
        ("cli/configuration/schema.py", "import torch"),
        ("wavegpt/trained.py", "import lightning"),
        ("wavegpt/export.py", "import transformers"),
        ("wavegpt/config/arm.py", "import torch"),
    ],
)
def test_import_contracts_see_a_breach(tmp_path: Path, module: str, line: str) -> None:
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for package in PYPROJECT["tool"]["importlinter"]["root_packages"]:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    named = {
        name.strip()
        for contract in PYPROJECT["tool"]["importlinter"]["contracts"]
        for line in (*contract.get("source_modules", ()), *contract.get("layers", ()))
        for name in line.split("|")
    }
    for name in sorted(named):  # a contract asks for the packages and modules that it names
        if "." in name and (ROOT / name.replace(".", "/")).is_dir():
            (tmp_path / name.replace(".", "/")).mkdir()
            (tmp_path / name.replace(".", "/") / "__init__.py").touch()
        elif "." in name:
            (tmp_path / name.replace(".", "/")).with_suffix(".py").touch()
    assert contracts(tmp_path).returncode == 0
    (tmp_path / module).write_text(line + "\n")
    result = contracts(tmp_path)
    assert result.returncode == 1
    assert "BROKEN" in result.stdout


def test_every_root_package_is_listed() -> None:
    """One that is missing would be left out of a wheel, out of the type check or out of the contracts, silently."""
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}  # of a checkout
    assert packages <= set(SETUPTOOLS["packages"])
    assert packages <= set(PYPROJECT["tool"]["mypy"]["files"])
    assert "benchmarks" in PYPROJECT["tool"]["mypy"]["files"]
    assert packages <= set(PYPROJECT["tool"]["importlinter"]["root_packages"])
    assert {p.stem for p in ROOT.glob("*.py")} <= set(SETUPTOOLS["py-modules"])
    nested = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for package in packages
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert nested | {"configs"} == set(SETUPTOOLS["packages"])


def test_every_data_file_is_shipped() -> None:
    """What is no Python in a package reaches a wheel only through a pattern."""
    patterns: dict[str, list[str]] = SETUPTOOLS["package-data"]
    for path in repository_files():
        inside = path.relative_to(ROOT)
        folders = {".".join(inside.parts[:n]): Path(*inside.parts[n:]) for n in range(1, len(inside.parts))}
        owner = max((name for name in folders if name in SETUPTOOLS["packages"]), key=len, default=None)
        if owner is not None and path.suffix != ".py":
            inner = folders[owner]
            shipped = [*patterns["*"], *patterns.get(owner, [])]
            assert any(inner.match(p) and len(Path(p).parts) == len(inner.parts) for p in shipped), path


SECTIONS = ("Args:", "Attributes:", "Example:", "Examples:", "Note:", "Raises:", "Returns:", "Yields:", ">>>")


@pytest.mark.parametrize("package", ["callbacks", "cli", "datamodules", "modulant", "modulators", "probes", "wavegpt"])
def test_docstrings_begin_with_a_summary(package: str) -> None:
    """Every module has a docstring; one of a public class, function or method opens with a summary, not a section."""
    wrong = []
    for path in sorted((ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not (ast.get_docstring(tree) or "").strip():
            wrong.append(f"{path.relative_to(ROOT)}: no docstring")
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                name, text = getattr(node, "name", "module"), ast.get_docstring(node, clean=False)
                first = text.partition("\n")[0].strip() if text is not None else "none"
                if not name.startswith("_") and (not first or first.startswith(SECTIONS)):
                    wrong.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}: {name}")
    assert not wrong, "\n".join(wrong)


def test_every_package_is_typed() -> None:
    for package in PYPROJECT["tool"]["importlinter"]["root_packages"]:
        assert (ROOT / package / "py.typed").is_file(), package


@pytest.mark.parametrize("text", REQUIREMENTS)
def test_pin_lies_in_its_range(text: str) -> None:
    requirement = Requirement(text)
    pin = PINS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin), f"constraints.txt pins {pin}"


def test_constraints_hold_pins_alone() -> None:
    """No paths, no addresses, no local versions: they are true on one machine only."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line), line


def test_the_lock_holds_the_pins_with_their_hashes() -> None:
    """Each needed package once, at its pinned version, with at least one hash; no address, no torch."""
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "index" not in text.replace("sha256", "")
    entry = r"^([\w.-]+)==([^\s;]+)(?: ;[^\n\\]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)"
    entries = re.findall(entry, text, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^[\w.-]+==", text, re.MULTILINE)), "an entry without hashes"
    locked = {canonicalize_name(name): version for name, version, _ in entries}
    assert len(locked) == len(entries)
    assert {name: PINS[name] for name in locked} == locked
    assert "torch" not in locked
    extras = PROJECT["optional-dependencies"]
    named = {canonicalize_name(Requirement(text).name) for text in (*PROJECT["dependencies"], *extras["dev"])}
    assert named - set(locked) == {"torch"}


@pytest.mark.parametrize(("package", "at_least"), [("lightning", "2.6.6"), ("nltk", "3.9.3"), ("jsonargparse", "4.53")])
def test_versions_with_known_holes_are_out_of_range(package: str, at_least: str) -> None:
    """lightning 2.6.2 and 2.6.3 were malware, 2.6.4 and 2.6.5 run a checkpoint's code; nltk before 3.9.3 unpacks
    beyond its folder; jsonargparse before 4.53 cannot be told to import nothing."""
    requirement = next(r for r in map(Requirement, PROJECT["dependencies"]) if r.name == package)
    lower = [Version(s.version) for s in requirement.specifier if s.operator == ">="]
    assert max(lower) >= Version(at_least)


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").iterdir()), ids=lambda path: path.name)
def test_actions_are_pinned_by_commit(path: Path) -> None:
    """… with the version that it was beside it; and a workflow may read, and nothing else, but publish its pages."""
    used = [line.strip() for line in path.read_text().splitlines() if re.match(r"\s*-?\s*uses:", line)]
    assert used
    for line in used:
        assert re.fullmatch(r"-?\s*uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    more = {(path.stem, name): job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job}
    assert more.keys() <= {("docs", "publish")}
    assert all(granted == {"pages": "write", "id-token": "write"} for granted in more.values())


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").iterdir()), ids=lambda path: path.name)
def test_workflows_run_what_is_there(path: Path) -> None:
    """Targets of the Makefile, with tests that are there, and scripts."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    steps = [step for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]]
    commands = [step["run"].split() for step in steps if "run" in step]
    assert commands
    for program, *words in commands:
        if program == "make":
            assert words[0] in targets, words
            assert all((ROOT / word.removeprefix("ARGS=")).exists() for word in words[1:]), words
        else:
            assert (ROOT / program).is_file(), program


def test_issue_forms_ask_for_something_once() -> None:
    """A form that GitHub cannot read is not offered, silently: names, and questions with an id each."""
    forms = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").iterdir() if path.name != "config.yml"]
    assert forms
    for path in forms:
        form = yaml.safe_load(path.read_text())
        assert form["name"], path
        assert form["description"], path
        identifiers = [part["id"] for part in form["body"]]
        assert len(set(identifiers)) == len(identifiers), path
        assert all(part["attributes"]["label"] for part in form["body"]), path


def test_one_version() -> None:
    """pyproject.toml has it; citation and changelog agree, on its date too, and what comes next stands above."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["[Unreleased]", f"[{PROJECT['version']}] - {citation['date-released']}"]


def test_extras_that_are_named_exist() -> None:
    """In what pages, messages and configurations tell to install."""
    named = {
        extra.strip(): path
        for path in repository_files()
        if path.suffix in {".md", ".py", ".yaml", ".ipynb"}
        for extras in re.findall(r"modulant\[([a-z][a-z, -]*)\]", path.read_text(encoding="utf-8"))
        for extra in extras.split(",")
    }
    assert named
    assert named.keys() <= set(PROJECT["optional-dependencies"]), named


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_config_is_a_mapping_without_repeated_keys(path: Path) -> None:
    """YAML lets a key stand twice and keeps the last: half of what a user wrote would be ignored."""

    def check(node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), f"{node.start_mark}: repeated key"
            for _, value in node.value:
                check(value)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                check(item)

    node = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    check(node)


def test_repository_stays_small() -> None:
    """25 MB is what the bundled backbone may take; a larger file does not belong in git."""
    too_large = {path.name: size for path in repository_files() if (size := path.stat().st_size) > 25e6}
    assert not too_large
