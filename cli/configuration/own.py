"""User-supplied files of modulators and objectives, named by `--trust FILE`: their constructors are read as text.

`cli.running.own_code` executes the files, once a command has passed all other checks.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from modulant.settings import schema_of

Schema = dict[str, Any]
OWN = "own"  # the folder in a run that keeps a copy
SUMS = "SHA256SUMS"
LOADED: set[str] = set()  # names of user-supplied modules, which the next command may load again


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
        ValueError: there is none, its name is none that can be imported, or that of an installed module.
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


# What a user may supply: each base class and the shipped ones that may be extended, and the arguments that no
# configuration gives.
_KINDS = {
    "Modulator": (("Modulator", "FieldModulator", "LerpModulator"), ("self", "stream")),
    "Objective": (("Objective", "LemmaObjective", "RelationalObjective", "WeightedObjectives"), ("self",)),
}
# What the abstract ones leave to a subclass.
ABSTRACT = {
    "Modulator": frozenset({"_modulate", "alphas", "expert_names", "active_dims", "parameter_groups"}),
    "Objective": frozenset({"terms"}),
}
KIND = "x-kind"  # of a schema: which of these it is
LACKS = "x-lacks"  # of a schema: what the class does not define, as far as its text shows


def classes(files: Iterable[OwnFile]) -> dict[str, Schema]:
    """Name in a configuration → schema of the arguments, of modulators and objectives that user-supplied files define.

    Raises:
        ValueError: a file is no Python, or holds neither.
    """
    found: dict[str, Schema] = {}
    for file in files:
        try:
            tree = ast.parse(file.content.decode())
        except (SyntaxError, ValueError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            raise ValueError(f"--trust: {file.path}{line}: not Python ({getattr(error, 'msg', error)})") from error
        bases = {name: kind for kind, (names, _) in _KINDS.items() for name in names}
        lacking: dict[str, frozenset[str]] = dict.fromkeys(bases, frozenset()) | ABSTRACT
        own = {}
        for node in tree.body:
            extended = [bases[name] for base in getattr(node, "bases", ()) if (name := _last_name(base)) in bases]
            if isinstance(node, ast.ClassDef) and extended:
                bases[node.name] = extended[0]
                arguments = _arguments(node, len(_KINDS[extended[0]][1]))
                lacking[node.name] = _lacks(node, lacking)
                own[f"{file.module}.{node.name}"] = arguments | {KIND: extended[0], LACKS: lacking[node.name]}
        if not own:
            raise ValueError(f"--trust: {file.path} holds no subclass of modulators.Modulator or modulators.Objective")
        found |= own
    return found


def refuse_abstract(name: str, lacks: Iterable[str]) -> None:
    """Refuse a class that is named in a configuration and does not define all that its base leaves to it.

    Raises:
        ValueError: it lacks something.
    """
    if named := ", ".join(sorted(lacks)):
        raise ValueError(f"--trust: {name} is abstract, and cannot be built: it does not define {named}")


def _lacks(node: ast.ClassDef, lacking: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """What a class leaves abstract; nothing where a base, a decorator or a metaclass could define it unseen."""
    bases = [_last_name(base) for base in node.bases]
    if node.keywords or node.decorator_list or any(base not in lacking for base in bases):
        return frozenset()
    defined, left = set(), set()
    for item in ast.walk(node):
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(item.name)
            if any(_last_name(decorator) == "abstractmethod" for decorator in item.decorator_list):
                left.add(item.name)
        elif isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store):
            defined.add(item.id)
        elif isinstance(item, ast.alias):
            defined.add(item.asname or item.name)
    inherited = frozenset.intersection(*(lacking[base] for base in bases))
    return inherited - defined | left


def _arguments(node: ast.ClassDef, leading: int) -> Schema:
    """Of a constructor, as far as it is written down: an annotation that is no plain type accepts anything.

    Args:
        node: the class.
        leading: how many of its first arguments no configuration gives.
    """
    schema: Schema = {"type": "object", "additionalProperties": False, "properties": {}}
    init = next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)
    if init is None:  # the arguments of a class that this one extends
        return schema | {"additionalProperties": True}
    positional = [*init.args.posonlyargs, *init.args.args]
    without = [None] * (len(positional) - len(init.args.defaults))
    pairs = [*zip(positional, [*without, *init.args.defaults], strict=True)][leading:]
    for argument, default in (*pairs, *zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)):
        own = _schema(argument.annotation)
        with suppress(ValueError):
            own |= {} if default is None else {"default": ast.literal_eval(default)}
        if default is None:
            schema.setdefault("x-required", []).append(argument.arg)
        schema["properties"][argument.arg] = own
    schema["additionalProperties"] = init.args.kwarg is not None
    return schema


def _schema(annotation: ast.expr | None) -> Schema:
    match annotation:
        case ast.Name(id="int" | "float" | "bool" | "str" as name):
            return schema_of({"int": int, "float": float, "bool": bool, "str": str}[name])
        case ast.Constant(value=None):
            return schema_of(NoneType)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            options = [_schema(left), _schema(right)]
            return {} if {} in options else {"anyOf": options}
        case ast.Subscript(value=value, slice=inner) if _last_name(value) == "Literal":
            return {"enum": [ast.literal_eval(part) for part in getattr(inner, "elts", [inner])]}
        case ast.Subscript(value=value, slice=inner) if _last_name(value) in ("list", "Sequence"):
            return {"type": "array", "items": _schema(inner)}
    return {}


def _last_name(node: ast.expr) -> str:
    """``Modulator`` of ``modulators.Modulator``."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def kept_sha256(run: Path, name: str) -> str | None:
    """Of the file that a run was trained with, by its name; None where it had none."""
    try:
        lines = (run / OWN / SUMS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line[:64] for line in lines if line[66:] == name), None)


def changes(files: Iterable[OwnFile], run: Path) -> list[str]:
    """One line for each file that is not what the run was trained with."""
    changed = []
    for file in files:
        kept = kept_sha256(run, file.path.name)
        if kept is not None and kept != file.sha256:
            copy = run / OWN / file.path.name
            changed.append(f"{file.path} has changed since this run was trained (its copy: {copy})")
    return changed


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
        state = "unchanged since then" if same else f"changed since; its copy is {copy}" if here.is_file() else ""
        named = f"--trust {here}, {state}" if state else f"--trust {copy}"
        return f"; the run was trained with a file of its own, which is executed only if you name it again: {named}"
    return f"; if you trust {here}, which lies here, add --trust {here}" if here.is_file() else ""
