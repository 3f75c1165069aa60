"""Execute the files that a user trusts, as modules named by their stems, and keep a copy with the run.

The same bytes are hashed, kept and executed, even if the file changes meanwhile.
"""

import sys
import traceback
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cli.configuration import own
from cli.configuration.own import LOADED, OWN, SUMS, OwnFile
from cli.configuration.schema import class_paths
from modulant.storage import write_whole
from modulant.storage.files import free_name
from modulators import Modulator, register


def load(file: OwnFile) -> None:
    """Execute a file as a module, and register its modulators; an objective is found by its name alone.

    Raises:
        ValueError: it raises an error; the message has its line.
    """
    module = types.ModuleType(file.module)
    module.__file__ = str(file.path.resolve())
    sys.modules[file.module] = module
    LOADED.add(file.module)
    try:
        exec(compile(file.content, module.__file__, "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[file.module]
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == module.__file__]
        line = frames[-1].lineno if frames else getattr(error, "lineno", None)
        where = f"{file.path}{f', line {line}' if line else ''}"
        raise ValueError(f"--trust: {where}: {type(error).__name__}: {error}") from error
    for kind in vars(module).values():
        if isinstance(kind, type) and issubclass(kind, Modulator) and kind.__module__ == file.module:
            register(kind)


def refuse_abstract(config: Any) -> None:
    """Refuse an abstract class of a user-supplied file, wherever a configuration names it: text shows not all of them.

    Raises:
        ValueError: the class does not define all that it must.
    """
    for name in class_paths(config):
        module, _, last = str(name).rpartition(".")
        if module in LOADED:
            own.refuse_abstract(name, getattr(getattr(sys.modules[module], last, None), "__abstractmethods__", ()))


def keep(files: Iterable[OwnFile], run: Path, until: str) -> None:
    """Leave a copy in the run folder; one that is there and differs stays, under the name of the point it led to."""
    files = list(files)
    for file in files:
        copy = run / OWN / file.path.name
        if copy.is_file() and copy.read_bytes() != file.content:
            copy.replace(free_name(copy.with_name(f"{file.module}_until_{until}.py")))
        copy.parent.mkdir(exist_ok=True)
        write_whole(copy, file.content)
    if files:
        write_whole(run / OWN / SUMS, "".join(f"{file.sha256}  {file.path.name}\n" for file in files))
