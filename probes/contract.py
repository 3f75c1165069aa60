"""Does a modulator, or an objective, keep what every one promises? The suite that this package's own pass."""

import argparse
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from probes.configurations import near
from probes.pages import table

if TYPE_CHECKING:
    from modulators import Modulator, Objective

DESCRIPTION = """\
Run the contract suite on a modulator: identity at alpha 0, exactly its own parameters train, save and load, precision,
generation, gradient checkpointing and the rest, on small random T5 v1.0, T5 v1.1 and UMT5. Or that of an objective: one
finite number for any batch, a gradient where it is needed, any order of a batch. FILE is executed."""
EXAMPLES = """\
examples:
  python probe.py contract my_modulator.py
  python probe.py contract my_modulator.py:Spiral --init turn=0.3 --compile
  python probe.py contract FieldModulator
  python probe.py contract docs/examples/hypernyms.py"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("modulator", metavar="FILE[:CLASS]", help="a Python file of yours, or a class that is shipped")
    parser.add_argument("--init", nargs="+", default=[], metavar="NAME=VALUE", help="arguments of its constructor")
    parser.add_argument("--compile", action="store_true", help="ask torch.compile too, which takes seconds")


def main(args: argparse.Namespace) -> int:
    """Print a table of all checks; 0 where all hold, 1 where one does not.

    Raises:
        ValueError: there is no such file, class or argument.
    """
    from modulators import Objective
    from modulators.contract.suite import examine, examine_objective

    arguments = _arguments(args.init)
    kind: Any = _find(args.modulator)
    is_objective = issubclass(kind, Objective)
    _check_arguments(kind, arguments, 0 if is_objective else 1)
    if is_objective:
        results = examine_objective(lambda: kind(**arguments))
    else:
        results = examine(lambda stream: kind(stream, **arguments), args.compile)
    rows = [[result.promise, "failed" if result.reason else "ok"] for result in results]
    print(table([f"{kind.__name__}", ""], rows))
    failed = [result for result in results if result.reason]
    for result in failed:
        print(f"{result.name}: {result.reason}")
    print(f"{kind.__name__}: {len(results) - len(failed)} of {len(results)} checks hold")
    return 1 if failed else 0


def _arguments(words: list[str]) -> dict[str, Any]:
    """The constructor's arguments, each value read as YAML.

    >>> _arguments(["n_dims=8", "names=[a, b]"])
    {'n_dims': 8, 'names': ['a', 'b']}
    """
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"--init: {word!r} is no NAME=VALUE")
        found[name] = yaml.safe_load(value)
    return found


def _find(text: str) -> "type[Modulator] | type[Objective]":
    from modulators import Modulator, Objective
    from modulators.registry import registered_class, registered_names

    file, _, name = text.partition(":")
    if not file.endswith(".py"):
        if text not in registered_names():
            names = registered_names()
            raise ValueError(f"{text} is neither a Python file nor one of {', '.join(names)}{near(text, names)}")
        return registered_class(text)
    module = _execute(Path(file))
    own = {
        key: kind
        for key, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, Modulator | Objective) and kind.__module__ == module.__name__
    }
    if not name and len(own) > 1:  # a base of the others is not meant
        own = {key: kind for key, kind in own.items() if not inspect.isabstract(kind)} or own
    if name and name not in own:
        raise ValueError(f"{file} has no modulator or objective {name}{near(name, list(own))}")
    if not name and len(own) != 1:
        held = ", ".join(own) or "no subclass of modulators.Modulator or modulators.Objective"
        raise ValueError(f"{file} holds {held}; name one, as FILE:CLASS")
    return own[name or next(iter(own))]


def _execute(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ValueError(f"no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where pickle looks for its classes
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error
    return module


def _check_arguments(kind: Any, arguments: dict[str, Any], leading: int) -> None:
    """Refuse a class that cannot be built, before every check fails for that reason."""
    if inspect.isabstract(kind):
        lacks = ", ".join(sorted(kind.__abstractmethods__))
        raise ValueError(f"{kind.__name__} is abstract, and cannot be built: it does not define {lacks}")
    parameters = list(inspect.signature(kind).parameters.values())[leading:]
    names = [parameter.name for parameter in parameters]
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    for name in arguments:
        if name not in names and not any_name:
            raise ValueError(f"--init: {kind.__name__} has no argument {name}{near(name, names)}")
    free = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.kind not in free and parameter.name not in arguments:
            raise ValueError(f"--init: {kind.__name__} needs {parameter.name}, as {parameter.name}=VALUE")
