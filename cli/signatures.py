"""What a class can be configured with, read from its source: nothing is imported to know a constructor's arguments.

Importing Lightning, torch and transformers takes many seconds, and all that a check of keys and types needs is written
in a few lines of a few files. Annotations become the types that they name; what is no plain type (a class that is to
be built) becomes `Built`, and is left to the parser.
"""

import ast
import builtins
import importlib
import importlib.util
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_OURS = Path(__file__).resolve().parents[1]
_ALSO: dict[str, str] = {}  # a user's own modules that may be read, and their text
_STANDARD = {"typing", "typing_extensions", "collections", "collections.abc", "datetime", "os", "pathlib"}


class Built:
    """Stands for any class that is no plain value: something is to be built or called there."""


class _Nothing:
    """Stands for a default that there is not, or that is no literal."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


REQUIRED = _Nothing("required")
UNKNOWN = _Nothing("unknown")


@dataclass(frozen=True)
class Parameter:
    """An argument: the type of its values, and its default, `REQUIRED` or `UNKNOWN`."""

    kind: Any
    default: Any


@dataclass(frozen=True)
class Signature:
    """A class, as far as a configuration is concerned.

    Attributes:
        path: the name that it is exported by, such as ``modulators.ModulatedT5``.
        home: the module that defines it.
        bases: its own name and those of all its ancestors that could be read.
        methods: names of its methods, inherited ones too.
        abstract: whether only its subclasses can be built.
        parameters: of the constructor, in order.
        takes_more: whether it takes further keywords.
    """

    path: str
    home: str
    bases: frozenset[str]
    methods: frozenset[str]
    abstract: bool
    parameters: Mapping[str, Parameter]
    takes_more: bool

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def names(self) -> tuple[str, str]:
        """Both that a configuration may use: where it is exported, and where it is defined."""
        return self.path, f"{self.home}.{self.name}"


def names_of(path: str) -> tuple[str, str]:
    """Both names that a configuration may use for a class: where it is exported, and where it is defined.

    Raises:
        LookupError: no source, or no such class in it.
    """
    package, _, name = path.rpartition(".")
    return path, f"{_find_class(package, name)[0]}.{name}"


@cache
def signature(path: str) -> Signature:
    """A class by the name that it is exported by.

    Raises:
        LookupError: no source, or no such class in it.
    """
    package, _, name = path.rpartition(".")
    module, node = _find_class(package, name)
    bases, methods = {name}, set[str]()
    constructor: tuple[str, ast.ClassDef, ast.FunctionDef] | None = None
    fields: list[tuple[str, ast.AnnAssign]] = []
    for home, ancestor in _ancestry(module, node):
        bases |= {ancestor.name, *(_last_name(base) for base in ancestor.bases)}
        own = {item.name: item for item in ancestor.body if isinstance(item, ast.FunctionDef)}
        methods |= own.keys()
        if constructor is None and "__init__" in own:
            constructor = home, ancestor, own["__init__"]
        if any(_last_name(decorator) == "dataclass" for decorator in ancestor.decorator_list):
            fields += [(home, item) for item in ancestor.body if isinstance(item, ast.AnnAssign)]
    abstract = any(_last_name(base) == "ABC" for base in node.bases)
    parameters, takes_more = dict[str, Parameter](), False
    if constructor is not None:
        home, _, function = constructor
        parameters, takes_more = _arguments(home, function.args), function.args.kwarg is not None
    for home, field in fields:
        default = REQUIRED if field.value is None else _literal(field.value)
        parameters[typing.cast(ast.Name, field.target).id] = Parameter(_type(home, field.annotation), default)
    return Signature(path, module, frozenset(bases), frozenset(methods), abstract, parameters, takes_more)


def exported(package: str, base: str) -> dict[str, Signature]:
    """Name in a configuration → class, of what a package exports and is a concrete kind of `base`."""
    return _concrete(package, [name for name in _all_of(package) if name[:1].isupper()], base)


def concrete(module: str, base: str) -> dict[str, Signature]:
    """The same of what a module defines itself."""
    own = [name for name, bound in _bindings(module).items() if isinstance(bound, ast.ClassDef)]
    return _concrete(module, own, base)


def read_also(module: str, text: str) -> None:
    """From now on that text is the source of a module, which is nowhere to be found by its name.

    Raises:
        SyntaxError: it is no Python.
    """
    ast.parse(text)
    _ALSO[module] = text
    for cached in (signature, _bindings, _source):
        cached.cache_clear()


def _concrete(package: str, names: list[str], base: str) -> dict[str, Signature]:
    found = {}
    for name in names:
        try:
            known = signature(f"{package}.{name}")
        except LookupError:  # an alias, a constant
            continue
        if base in known.bases and not known.abstract:
            found[known.path] = known
    return found


def _all_of(package: str) -> list[str]:
    value = _bindings(package).get("__all__")
    if not isinstance(value, ast.Assign):
        raise LookupError(f"{package} has no __all__")
    return list(ast.literal_eval(value.value))


def _arguments(module: str, args: ast.arguments) -> dict[str, Parameter]:
    positional = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults))
    pairs = [*zip(positional, [*defaults, *args.defaults], strict=True)][1:]  # without self
    pairs += zip(args.kwonlyargs, args.kw_defaults, strict=True)
    return {
        argument.arg: Parameter(
            Any if argument.annotation is None else _type(module, argument.annotation),
            REQUIRED if default is None else _literal(default),
        )
        for argument, default in pairs
    }


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return UNKNOWN


def _ancestry(module: str, node: ast.ClassDef) -> Iterator[tuple[str, ast.ClassDef]]:
    """A class and its ancestors, nearest first, as far as they are of the same distribution."""
    yield module, node
    for base in node.bases:
        try:
            home, found = _class_named(module, base)
        except LookupError:
            continue
        yield from _ancestry(home, found)


def _class_named(module: str, node: ast.expr) -> tuple[str, ast.ClassDef]:
    if not isinstance(node, ast.Name):  # pl.LightningModule: a library's, seen from here
        raise LookupError(ast.unparse(node))
    return _find_class(module, node.id)


def _last_name(node: ast.expr) -> str:
    """``LightningModule`` of ``pl.LightningModule``, ``dataclass`` of ``dataclass(frozen=True)``."""
    if isinstance(node, ast.Call | ast.Subscript):
        return _last_name(node.func if isinstance(node, ast.Call) else node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _find_class(module: str, name: str) -> tuple[str, ast.ClassDef]:
    home, bound = _find(module, name)
    if not isinstance(bound, ast.ClassDef):
        raise LookupError(f"{module}.{name} is no class")
    return home, bound


def _find(module: str, name: str) -> tuple[str, ast.stmt]:
    """Where a name comes from: the module that binds it otherwise than by an import, and how."""
    for _ in range(20):
        bound = _bindings(module).get(name)
        if bound is None:
            raise LookupError(f"{module} has no {name}")
        if not isinstance(bound, ast.ImportFrom):
            return module, bound
        alias = next(alias for alias in bound.names if (alias.asname or alias.name) == name)
        if bound.level:
            package = module if _is_package(module) else module.rpartition(".")[0]
            above = ".".join(package.split(".")[: len(package.split(".")) - bound.level + 1])
            module, name = f"{above}.{bound.module}" if bound.module else above, alias.name
        else:
            module, name = str(bound.module), alias.name
        if module in _STANDARD:
            return module, bound
        if not _is_read(module):
            raise LookupError(f"{module}.{name} is of another distribution")
    raise LookupError(f"{module}.{name}: imports go round")


def _is_read(module: str) -> bool:
    """Ours, or Lightning's: what others define is built by itself, and their sources are long."""
    root = module.partition(".")[0]
    return root == "lightning" or root in _ALSO or (_OURS / root / "__init__.py").is_file()


@cache
def _source(module: str) -> Path:
    """The file of a module. Only its outermost package is looked up, which runs none of its code."""
    root, *rest = module.split(".")
    spec = importlib.util.find_spec(root)
    if spec is None:
        raise LookupError(f"no module {root}")
    places = list(spec.submodule_search_locations or [])
    if not places:
        if rest or spec.origin is None or not spec.origin.endswith(".py"):
            raise LookupError(f"no source of {module}")
        return Path(spec.origin)
    inner = Path(places[0], *rest)
    for path in (inner / "__init__.pyi", inner / "__init__.py", inner.with_suffix(".py")):
        if path.is_file():
            return path
    raise LookupError(f"no source of {module}")


def _is_package(module: str) -> bool:
    return module not in _ALSO and _source(module).stem == "__init__"


@cache
def _bindings(module: str) -> dict[str, ast.stmt]:
    """Name → the statement that binds it, at the top level of a module, in its ``if`` and its ``try``."""
    found: dict[str, ast.stmt] = {}

    def look(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                found[node.name] = node
            elif isinstance(node, ast.Import | ast.ImportFrom):
                found.update(dict.fromkeys((alias.asname or alias.name for alias in node.names), node))
            elif isinstance(node, ast.Assign):
                found.update(dict.fromkeys((t.id for t in node.targets if isinstance(t, ast.Name)), node))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[node.target.id] = node
            elif isinstance(node, ast.If | ast.Try):
                look([*node.body, *node.orelse])

    try:
        text = _ALSO[module] if module in _ALSO else _source(module).read_text(encoding="utf-8")
    except OSError as error:
        raise LookupError(f"no source of {module}") from error
    look(ast.parse(text).body)
    return found


def _type(module: str, node: ast.expr) -> Any:
    """The type that an annotation names."""
    try:
        return _annotation(module, node)
    except (LookupError, TypeError):
        return Built


def _annotation(module: str, node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str(text)):
            return _annotation(module, ast.parse(text, mode="eval").body)
        case ast.Name(id=name):
            return _named(module, name)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return typing.Union[_annotation(module, left), _annotation(module, right)]  # noqa: UP007
        case ast.Subscript(value=value, slice=inner):
            outer = _annotation(module, value)
            if outer is typing.Literal:
                return outer[ast.literal_eval(inner)]
            if outer is Built or typing.get_origin(outer) is typing.get_origin(typing.Callable[..., Any]):
                return Built
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            kinds = tuple(_annotation(module, part) for part in parts)
            return outer[kinds if len(kinds) > 1 else kinds[0]]
    return Built


def _named(module: str, name: str) -> Any:
    try:
        home, bound = _find(module, name)
    except LookupError:
        return getattr(builtins, name, Built)
    match bound:
        case ast.ImportFrom():
            original = next(alias.name for alias in bound.names if (alias.asname or alias.name) == name)
            value = getattr(importlib.import_module(home), original)
            return Built if value is typing.Callable or isinstance(value, types.ModuleType) else value
        case ast.Assign(value=value):
            return _annotation(home, value)
    return Built


__all__ = [
    "REQUIRED",
    "UNKNOWN",
    "Built",
    "Parameter",
    "Signature",
    "concrete",
    "exported",
    "names_of",
    "read_also",
    "signature",
]
