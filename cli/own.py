"""Files of a user's own that hold modulators, named by `--trust FILE`: read as text, to know what may be said of them.

`cli.own_code` executes them, once a command has passed all other checks.
"""

import hashlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cli.signatures import Signature, concrete, read_also

OWN = "own"  # the folder in a run that keeps a copy
SUMS = "SHA256SUMS"
LOADED: set[str] = set()  # names of modules that are a user's own, and may be made again by the next command


@dataclass(frozen=True)
class OwnFile:
    """A file as it was when it was read."""

    path: Path
    content: bytes

    @property
    def module(self) -> str:
        return self.path.stem

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def read(path: Path) -> OwnFile:
    """Read a file, and execute nothing of it.

    Raises:
        ValueError: there is none, its name is none that can be imported, or is that of a module that is installed.
    """
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise ValueError(f"--trust: {path} must be a Python file whose name is a plain word, such as my_modulator.py")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"--trust: {path} cannot be read ({error.strerror})") from error
    spec = None if path.stem in LOADED else importlib.util.find_spec(path.stem)
    if spec is not None and Path(str(spec.origin)).resolve() != path.resolve():
        raise ValueError(f"--trust: {path} has the name of a module that is installed; give it another")
    return OwnFile(path, content)


def modulators(files: Iterable[OwnFile]) -> dict[str, Signature]:
    """Name in a configuration → modulator, of what files of a user's own define.

    Raises:
        ValueError: a file is no Python, or holds no modulator.
    """
    found: dict[str, Signature] = {}
    for file in files:
        try:
            read_also(file.module, file.content.decode())
        except (SyntaxError, ValueError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            raise ValueError(f"--trust: {file.path}{line}: no Python ({getattr(error, 'msg', error)})") from error
        own = concrete(file.module, "Modulator")
        if not own:
            raise ValueError(f"--trust: {file.path} holds no subclass of modulators.Modulator")
        found |= own
    return found


def kept_sha256(run: Path, name: str) -> str | None:
    """Of the file that a run was trained with, by its name; None where it had none."""
    try:
        lines = (run / OWN / SUMS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line[:64] for line in lines if line[66:] == name), None)


def changes(files: Iterable[OwnFile], run: Path) -> list[str]:
    """One line for each file that is not what the run was trained with."""
    told = []
    for file in files:
        kept = kept_sha256(run, file.path.name)
        if kept is not None and kept != file.sha256:
            told.append(f"{file.path} has changed since this run was trained (its copy: {run / OWN / file.path.name})")
    return told


def hint(name: str, run: Path | None, trusted: Iterable[OwnFile]) -> str:
    """How a class that was refused could be loaded, where it lies in a file at hand."""
    stem = name.partition(".")[0]
    if not stem.isidentifier() or stem in {file.module for file in trusted}:
        return ""
    here = Path(f"{stem}.py")
    kept = kept_sha256(run, here.name) if run is not None else None
    if kept is not None and run is not None:
        copy = run / OWN / here.name
        same = here.is_file() and hashlib.sha256(here.read_bytes()).hexdigest() == kept
        state = "which is the same as then" if same else f"changed since: then it was {copy}" if here.is_file() else ""
        named = f"--trust {here}, {state}" if state else f"--trust {copy}"
        return f"; the run was trained with a file of its own, which is executed only if you say so again: {named}"
    return f"; if you trust {here}, which lies here, add --trust {here}" if here.is_file() else ""
