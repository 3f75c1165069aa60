"""A command line taken apart: a subcommand, configurations, and options, which win over them. Imports nothing heavy."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cli.configuration.files import Config, did_you_mean
from cli.configuration.own import OwnFile
from cli.configuration.own import read as read_own
from cli.configuration.saved import SavedConfig

SUBCOMMANDS = ("fit", "validate", "test", "predict")
_CONFIG, _RESUME, _OUTPUT, _TRUST, _CONTROLS = ("--config", "-c"), "--resume", "--output", "--trust", "--controls"
_WITHOUT_VALUE, _DRY_RUN, _PROMPT = ("--print_config",), "--dry-run", "--prompt"


@dataclass(frozen=True)
class Command:
    """A command line.

    Attributes:
        subcommand: fit, validate, test or predict.
        configs: in the order given; a later one wins. Of a run that is resumed the saved one is the first.
        options: name without dashes and value; they win over every configuration.
        resume: the run folder to resume.
        output: the run folder, where one was named.
        dry_run: ``page`` or ``json`` where only what would be done is wanted.
        prints_config: only the resolved configuration is wanted.
        trusted: user-supplied files whose code may be executed.
        controls: names of the controls that are to be trained after a fit, with commas between them.
    """

    subcommand: str
    configs: tuple[Config, ...]
    options: tuple[tuple[str, str], ...]
    resume: Path | None
    output: Path | None
    prints_config: tuple[str, ...]
    dry_run: Literal["page", "json"] | None = None
    trusted: tuple[OwnFile, ...] = ()
    controls: str | None = None

    def run_name(self) -> str:
        """What a run of this command is called: its first configuration's name; for a saved one, that run's."""
        if not self.configs:
            return self.subcommand
        if not self.configs[0].path.is_file():
            return "piped"
        path = self.configs[0].path.resolve()
        if path.stem != "config":
            return path.stem
        return path.parent.parent.name if path.parent.name.startswith("version_") else path.parent.name


def read_command(argv: Sequence[str]) -> Command:
    """Take a command line apart and read its configurations.

    Raises:
        ValueError: no such subcommand, a value that is missing, a word that belongs nowhere, a configuration that is
            nowhere or no YAML mapping, or a folder to resume that is not there.
    """
    subcommand = argv[0] if argv else ""
    if subcommand not in SUBCOMMANDS:
        said = f"{subcommand!r} is not a subcommand" if subcommand else "a subcommand is missing"
        raise ValueError(f"{said}; it must be one of {', '.join(SUBCOMMANDS)}{did_you_mean(subcommand, SUBCOMMANDS)}")
    given: list[tuple[str, str]] = []
    bare: list[str] = []
    dry_run: Literal["page", "json"] | None = None
    words = list(argv[1:])
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name in _WITHOUT_VALUE:
            bare.append(word)
        elif name == _DRY_RUN:
            if value not in ("", "json"):
                raise ValueError(f"--dry-run={value}: it must be --dry-run, or --dry-run=json")
            dry_run = "json" if value else "page"
        elif not name.startswith("--") and name not in _CONFIG:
            raise ValueError(f"{word!r} belongs to no option; options are given as --name value")
        elif equals:
            given.append((name, value))
        elif words and not words[0].startswith("--"):
            given.append((name, words.pop(0)))
        else:
            raise ValueError(f"{name}: a value is missing")
    resume = next((Path(value) for name, value in reversed(given) if name == _RESUME), None)
    names = [value for name, value in given if name in _CONFIG]
    if resume is not None and not resume.is_dir():
        raise ValueError(f"--resume: no folder {resume}; name the folder of a run")
    configs = tuple(Config.read(name) for name in names)
    if (file := next((config.name for config in configs if config.content.get("resume")), None)) is not None:
        raise ValueError(f"{file}: resume is an option of the command line, --resume DIR")
    if resume is not None:
        configs = over_saved(resume, configs)
    output = next((value for name, value in reversed(given) if name == _OUTPUT), None)
    if output is None:
        output = next((c.content["output"] for c in reversed(configs) if c.content.get("output")), None)
    own = (*_CONFIG, _RESUME, _OUTPUT, _PROMPT, _TRUST, _CONTROLS)
    trusted = tuple(read_own(Path(value)) for name, value in given if name == _TRUST)
    options = tuple((name.removeprefix("--"), value) for name, value in given if name not in own)
    if prompts := [value for name, value in given if name == _PROMPT]:
        if subcommand != "predict":
            raise ValueError(f"--prompt: {subcommand} asks nothing; it is an option of predict")
        options += (("data.prompts", json.dumps(prompts, ensure_ascii=False)),)
    controls = next((value for name, value in reversed(given) if name == _CONTROLS), None)
    if controls is not None and subcommand != "fit":
        raise ValueError(f"--controls: {subcommand} trains nothing; it is an option of fit")
    folder = Path(output) if output else None
    return Command(subcommand, configs, options, resume, folder, tuple(bare), dry_run, trusted, controls)


def over_saved(resume: Path, configs: tuple[Config, ...]) -> tuple[Config, ...]:
    """Configurations with the one that a run has saved before them; without it where the run has lost its own.

    Raises:
        ValueError: the run has none, and no other names a model.
    """
    if any(map(_names_a_model, configs)) and not (resume / "config.yaml").is_file():
        return configs
    return (SavedConfig.of_run(resume), *configs)


def _names_a_model(config: Config) -> bool:
    """Whether a configuration configures a run, and does not only change some of its settings."""
    model = config.content.get("model")
    return isinstance(model, str) or (isinstance(model, Mapping) and "class_path" in model)
