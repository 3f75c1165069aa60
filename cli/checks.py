"""Everything that can be known to be wrong with a command before anything heavy is imported.

First each key by itself (`cli.keys`). Then the values together, as they will be once all files are overlaid and the
defaults are filled in: the constructors' own checks, which need no torch, combinations, and the files and folders that
are named. What only the libraries know (a device that is not there, a hub that has no such model) is left to them: the
parser and the constructors check everything again.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from callbacks.arguments import CHECKS as OF_CALLBACKS
from cli.arguments import Command
from cli.folder import RunFolder
from cli.keys import Keys, missing
from cli.sections import SECTIONS
from cli.signatures import REQUIRED, UNKNOWN
from cli.trainer import check_trainer, planned_steps
from cli.values import describe, either
from datamodules.arguments import CHECKS as OF_DATA
from datamodules.arguments import STANDARD_INPUT, piped_prompts
from modulant.backbones.sizes import read_sizes
from modulators.arguments import CHECKS as OF_MODELS
from modulators.arguments import check_alignment, check_steps, refuse_geometry

_CHECKS: Mapping[str, Callable[..., None]] = {**OF_CALLBACKS, **OF_DATA, **OF_MODELS}


def check(command: Command) -> None:
    """Check a command line.

    Raises:
        ValueError: whatever a user can mend, in one line that names the key or the file.
    """
    keys = Keys()
    keys.read(command)
    if command.prints_config:  # to be looked at, or finished elsewhere
        return
    _check_arguments(keys)
    check_trainer(keys.values.get("trainer", {}))
    _check_together(keys, command.subcommand)
    _check_files(keys, command)


def _check_arguments(keys: Keys) -> None:
    """Ranges: what the constructors would say."""
    for path in ("model", "model.modulator", "model.geometry", "data", *SECTIONS):
        if path == "model.geometry":
            if path not in keys.values:
                continue
            kind = keys.groups[path]
        elif (known := keys.classes.get(path)) is not None:
            kind = known
        else:
            continue
        given = keys.values.get(path, {})
        for name, wanted in missing(kind, given):
            if (path, name) not in (("model", "modulator"), ("model.modulator", "stream")):
                words = either(list(describe(wanted)))
                raise ValueError(f"{path}.{name} is missing; it must be {words or 'given'}")
        if (checks := _CHECKS.get(kind.name)) is not None:
            values = _values(keys, path)
            wanted_here = {name: values[name] for name in inspect.signature(checks).parameters}
            if any(value is UNKNOWN or value is REQUIRED for value in wanted_here.values()):
                continue
            try:
                checks(**wanted_here)
            except ValueError as error:
                raise ValueError(_in_section(path, str(error))) from error


def _in_section(path: str, said: str) -> str:
    """A class's message, with the key that configures it where it does not name that itself."""
    if path == "model.modulator":
        return f"{path}: {said}"
    return f"{path}: {re.sub(r'^[A-Z][A-Za-z]+: ', '', said)}" if path in SECTIONS else said


def _values(keys: Keys, path: str) -> dict[str, Any]:
    """What the arguments of a class will be: what was given, else the defaults."""
    kind = keys.groups[path] if path in keys.groups else keys.classes[path]
    defaults = {name: parameter.default for name, parameter in kind.parameters.items()}
    return defaults | keys.values.get(path, {})


def _check_together(keys: Keys, subcommand: str) -> None:
    """Combinations that no constructor sees by itself."""
    model = keys.classes["model"]
    modulator = keys.classes.get("model.modulator") if "modulator" in model.parameters else None
    arguments = _values(keys, "model")
    if modulator is not None and "model.geometry" in keys.values:
        if not {"place_geometry", "freeze_geometry"} <= modulator.methods:
            raise refuse_geometry(modulator.name)
        geometry, own = _values(keys, "model.geometry"), _values(keys, "model.modulator")
        sizes = read_sizes(arguments["backbone"])
        if geometry["kind"] != "none" and sizes is not None:
            check_alignment(own["n_geometric_dims"], sizes.d_model)
        if subcommand == "fit" and geometry["kind"] == "none" and own.get("learnable_alpha") is False:
            raise ValueError("model.modulator: it has no trainable parameter; use validate instead of fit")
    if subcommand == "fit" and arguments.get("cache") is not None:
        if keys.classes["data"].name != "WordNetDataModule":
            raise ValueError(
                f"model.cache: it keeps the batches of a WordNetDataModule, and data is a {keys.classes['data'].name}"
            )
        if _values(keys, "data")["regroup"] is True:
            raise ValueError(
                f"model.cache is {arguments['cache']}, and data.regroup is true; a cache is of batches that keep their "
                "members: leave data.regroup out, or set model.cache to null"
            )
    steps = planned_steps(keys.values.get("trainer", {}))
    if subcommand == "fit" and steps is not None:
        check_steps(str(arguments.get("schedule", "cosine")), steps)  # pre-training knows no other


def _check_files(keys: Keys, command: Command) -> None:
    """Folders and files that must be there, and the run folder, which must be free."""
    if (nltk_data := keys.values.get("data", {}).get("nltk_data")) is not None:
        from modulant.lexicon.archive import Archive

        try:
            Archive.find(nltk_data)
        except (OSError, ValueError) as error:  # a LexiconError, or no name of a file
            raise ValueError(f"data.nltk_data: {error}") from error
    if command.subcommand == "predict" and keys.values.get("data", {}).get("prompts") == STANDARD_INPUT:
        piped_prompts()
    RunFolder(command)
    if command.resume is not None and not any((command.resume / "checkpoints").glob("*.ckpt")):
        raise ValueError(f"--resume: no checkpoint in {command.resume / 'checkpoints'}: nothing to resume from")


__all__ = ["check"]
