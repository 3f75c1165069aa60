"""Builds the source distribution and the wheel, and checks that they hold what git holds of the packages, and no more.

    make dist

They are built from a copy of git's files, so that leftovers of a checkout stay out; the wheel from the other.
Nearly all of their size is WordNet and the bundled backbone (modulant/assets).
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 25e6  # bytes of each; an index takes 100 MB
BESIDE = ("LICENSE", "README.md", "pyproject.toml", "MANIFEST.in", "CHANGELOG.md", "CITATION.cff", "constraints.txt")
WRITTEN = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt")


def tracked() -> list[str]:
    """The files that git holds, in the checkout as they are now.

    Raises:
        ValueError: there is no checkout.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        raise ValueError(f"{ROOT} is not a git checkout")
    return [name for name in os.fsdecode(listed.stdout).split("\0") if (ROOT / name).is_file()]


def copy_sources(folder: Path) -> Path:
    """A copy of git's files: building leaves things beside the sources, and finds what an earlier build left."""
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def packaged(names: Collection[str]) -> set[str]:
    """Those of git's files that belong in a wheel: whole packages, and the root's modules.

    >>> sorted(packaged(["modulant/geometry/simplices.py", "modulant/py.typed", "train.py", "docs/index.md"]))
    ['modulant/geometry/simplices.py', 'modulant/py.typed', 'train.py']
    """
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = tuple(sorted({f"{name.partition('.')[0]}/" for name in settings["packages"]}))
    modules = {f"{name}.py" for name in settings["py-modules"]}
    return {name for name in names if name.startswith(folders) or name in modules}


def complaints(folder: Path) -> list[str]:
    """What is wrong with the one wheel and the one source distribution in ``folder``, a line each."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    stem = f"{project['name']}-{project['version']}"
    wheel, source = folder / f"{stem}-py3-none-any.whl", folder / f"{stem}.tar.gz"
    missing = [f"{path.name}: not built" for path in (wheel, source) if not path.is_file()]
    if missing:
        return missing
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(source) as archive:
        members = (member.name.removeprefix(f"{stem}/") for member in archive if member.isfile())
        in_source = {name for name in members if not name.startswith(f"{project['name']}.egg-info/")}
    own = packaged(tracked())
    return [
        *_differences(wheel.name, in_wheel, own | {f"{stem}.dist-info/{name}" for name in WRITTEN}),
        *_differences(source.name, in_source, own | {*BESIDE, "PKG-INFO", "setup.cfg"}),
        *(
            f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f}"
            for path in (wheel, source)
            if path.stat().st_size > LIMIT
        ),
    ]


def _differences(name: str, found: set[str], wanted: set[str]) -> list[str]:
    lines = [f"{name}: lacks {one}" for one in sorted(wanted - found)]
    return lines + [f"{name}: holds {one}" for one in sorted(found - wanted)]


def main() -> None:
    """Build into dist/ with the package `build`, have twine read the metadata, and check what is inside.

    Raises:
        SystemExit: with the lines of what is wrong.
    """
    folder = ROOT / "dist"
    for old in folder.glob("modulant-*"):
        old.unlink()
    with tempfile.TemporaryDirectory() as place:
        words = [sys.executable, "-m", "build", "--outdir", str(folder), str(copy_sources(Path(place)))]
        built = subprocess.run(words, capture_output=True, text=True, check=False)
    if built.returncode:
        sys.exit(built.stdout[-4000:] + built.stderr[-4000:])
    files = sorted(str(path) for path in folder.glob("modulant-*"))
    if subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], check=False).returncode:
        sys.exit("twine refuses the metadata")
    if lines := complaints(folder):
        sys.exit("\n".join(lines))
    for file in files:
        print(f"{file}: {Path(file).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
