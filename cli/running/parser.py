"""jsonargparse's parser as this project uses it: what it may import, and its errors in one line.

`cli.check` has found most errors by then. Left are those that only the libraries know, and what they say of them is a
list of every type that a value is not, or a sentence without the key.
"""

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace, set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser

import callbacks
from cli.configuration import own, schema
from cli.configuration.own import OwnFile
from cli.configuration.schema import as_list
from cli.running import own_code

# Key in the configuration, and the callback that it configures.
SECTIONS: dict[str, type[pl.Callback]] = {
    key: getattr(callbacks, own["$ref"].rpartition(".")[2])
    for key, own in schema.load()["properties"].items()
    if "callbacks." in own.get("$ref", "")
}
_UNION = "Does not validate against any of the Union subtypes"
# Lines of such a list that say nothing about the value.
_VAGUE = r"Expected a <class|Not a valid subclass|a class path \(str\)|a dict w|Parser key|Does not validate"

# Warnings of the libraries that a user cannot act on.
_NOISE = (
    r".*treespec, LeafSpec.*",
    r".*`IterableDataset` has `__len__` defined.*",
    r".*does not have many workers.*",
    r".*LightningCLI's args parameter.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*Found .* module\(s\) in eval mode.*",
    r".*The number of training batches .* is smaller than the logging interval.*",
    r".*torch.jit.script.* is deprecated.*",
    r".*You're resuming from a checkpoint that ended before the epoch ended.*",
    r".*GPU available but not used.*",
)


def prepare(trusted: tuple[OwnFile, ...], config: Mapping[str, Any] | None = None) -> None:
    """Settle what the parser may import, and execute the user-supplied files that are trusted.

    Raises:
        ValueError: a file raises an error, or a class of it that the configuration names is abstract.
    """
    quiet()
    set_parsing_settings(
        import_path_denylist=["*"],
        import_path_allowlist=[*allowlist(), *own.classes(trusted)],
        instantiate_subclass_spec_in_any=False,
    )
    for file in trusted:
        own_code.load(file)
    own_code.refuse_abstract(config)


def allowlist() -> list[str]:
    """Every name that the parser may import: of each class in the schema, where it is exported and where defined."""
    names = set(schema.load()["$defs"])
    for path in tuple(names):
        package, _, name = path.rpartition(".")
        kind = getattr(import_module(package), name)
        names.add(f"{kind.__module__}.{kind.__qualname__}")
    return sorted(names)


def quiet() -> None:
    """Silence warnings of the libraries that a user cannot act on."""
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


class Parser(LightningArgumentParser):
    """Raises an error instead of printing it with a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        raise ValueError(one_line(message)) from ex

    def instantiate_classes(self, *args: Any, **kwargs: Any) -> Any:
        """The name by which Lightning 2.6 calls what jsonargparse now calls `instantiate`."""
        return self.instantiate(*args, **kwargs)


def one_line(message: str) -> str:
    r"""The part of a parser's message that a user can act on.

    >>> one_line('Parser key "trainer.devices":\n  Expected an integer')
    'trainer.devices: Expected an integer'
    """
    message = re.sub(r'^Parser key "config":\s*', "", message)
    text = " ".join(message.split())
    if refused := re.search(r"^Parser key \"([^\"]+)\".*Importing '([^']+)' is not allowed", text):
        return f"{refused[1]}: '{refused[2]}' is not loaded"
    if _UNION in text:
        return _of_a_union(message)
    text = re.sub(r"Parser key \"([^\"]+)\":\s*", r"\1: ", text)
    return text if len(text) < 400 else text[:397] + "…"


def _of_a_union(message: str) -> str:
    """Of a list that says of every type why a value is none, the reason that is about the value."""
    key = re.match(r'Parser key "([^"]+)":', message)
    reasons = re.findall(rf"^ *- (?!{_VAGUE})(.+)$", message, re.MULTILINE)
    if not reasons:
        value = re.search(r"Given value: (.*)", message)
        reasons = [f"{schema.short(value[1]) if value else 'the value'} does not fit"]
    inner = re.match(r"([a-z_]+): ", reasons[0])  # of an argument of the class that is named there
    place = f"{key[1]}{'.' if inner else ': '}" if key else ""
    return place + schema.short(reasons[0], 200)


def named(error: Exception, config: Namespace) -> ValueError:
    """The error of a class's constructor with the key that configures it, out of the parser's errors around it.

    Args:
        error: of building what is configured.
        config: what was parsed.
    """
    inner: BaseException = error
    given = re.findall(r"class_path='[\w.]*?(\w+)'", str(error))
    while str(inner).startswith(_UNION) and inner.__cause__ is not None:
        inner = inner.__cause__
    if re.match(_VAGUE, str(inner)):  # the first of the types that the value is not
        inner = ValueError(one_line(str(error)))
    said = re.sub(r"^[A-Z][A-Za-z]+: ", "", " ".join(str(inner).split()))
    kinds = {kind.__name__: key for key, kind in SECTIONS.items()} | dict(_parts(config["trainer"]))
    section = next((kinds[name] for name in (*_constructors(inner), *given) if name in kinds), None)
    if section is None:
        return inner if isinstance(inner, ValueError) else ValueError(said)
    return ValueError(f"{section}: {said}")


def _parts(trainer: Namespace) -> Iterator[tuple[str, str]]:
    """Name of a class that the trainer is built of → its key."""
    for key, value in vars(trainer).items():
        for one in as_list(value):
            if isinstance(one, Namespace) and "class_path" in one:
                yield str(one["class_path"]).rpartition(".")[2], f"trainer.{key}"


def _constructors(error: BaseException) -> Iterator[str]:
    """Names of the classes whose constructors an error passed through, the outermost first."""
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code.co_name == "__init__":
            yield type(frame.f_locals.get("self")).__name__
        traceback = traceback.tb_next
