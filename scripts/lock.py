"""Writes requirements.lock: the packages that `make setup` installs, except torch, with the SHA-256 of their files.

    make lock

Versions come from constraints.txt, the selection from the requirements of the installed packages, hashes from uv at the
package index that pip is configured with. torch is left out: its builds for a CPU and for CUDA have one version and
different hashes. So are the tools of `make docs`, one of which needs a newer Python than the project.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
WITHOUT_HASHES = "torch"
HEAD = """\
# What `make setup` installs before torch and the project itself, checked against these hashes. Written by `make lock`
# from constraints.txt; a package's files for other systems and Python versions are listed too.
"""


def pins() -> dict[str, str]:
    """Canonical name → version, of constraints.txt."""
    lines = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in lines}


def needed(pinned: dict[str, str]) -> set[str]:
    """Names that the project and its `dev` extra need, directly or not, on any system, as far as they are pinned.

    Raises:
        SystemExit: a needed package is not installed, so its requirements are unknown.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    texts = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["dev"]]
    waiting = [Requirement(text) for text in (*texts, *project["build-system"]["requires"])]
    found: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if name not in pinned or (name, extras) in seen:
            continue
        seen.add((name, extras))
        found.add(name)
        try:
            inner = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                sys.exit(f"{name} is not installed: run `make setup` first")
            continue
        # markers of another system count as true; those of an extra only if it is wanted
        waiting += [
            wanted
            for wanted in inner
            if wanted.marker is None
            or "extra" not in str(wanted.marker)
            or any(wanted.marker.evaluate({"extra": extra}) for extra in extras)
        ]
    return found


def main() -> None:
    """Write the lock.

    Raises:
        SystemExit: uv is missing, or the index does not have a version.
    """
    uv = sys.argv[1] if len(sys.argv) > 1 else "uv"
    pinned = pins()
    names = sorted(needed(pinned) - {WITHOUT_HASHES})
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder) / "requirements.in", Path(folder) / "requirements.txt"
        asked.write_text("".join(f"{name}=={pinned[name]}\n" for name in names), encoding="utf-8")
        words = [uv, "pip", "compile", str(asked), "--quiet", "--no-deps", "--universal", "--generate-hashes"]
        words += ["--python-version", "3.11.0", "--no-header", "--no-annotate", "--output-file", str(answer), *_index()]
        if subprocess.run(words, check=False).returncode:
            sys.exit("uv could not write the lock; its message is above")
        LOCK.write_text(HEAD + answer.read_text(encoding="utf-8"), encoding="utf-8")
    print(f"{LOCK.name}: {len(names)} packages")


def _index() -> list[str]:
    """The index that pip is configured with, which uv does not read; its address never goes into the lock.

    Only that one: an extra index may offer a part of a version's files, and the lock would list no others.
    """
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    address = os.environ.get("PIP_INDEX_URL") or asked
    return ["--no-emit-index-url", *(["--default-index", address] if address else [])]


if __name__ == "__main__":
    main()
