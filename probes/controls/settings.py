"""Reads the command line of the controls: configurations, options, seeds, and the controls that apply to them.

Only YAML is read, so that a mistake is reported at once.
"""

import argparse
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from modulators.arguments import FIELD_DEFAULTS
from probes.configurations import CONFIGS, find_config, leaves, near, read_yaml, setting

OVERLAYS = CONFIGS / "controls"
ADAPTERS = ("lora", "lora_slow", "ia3")  # no modulator at all, but as many parameters
METHODS = (*ADAPTERS, "full")  # what stands in the place of a modulator
_KINDS = ("Encoder", "CausalLM")  # ends of the classes of those on other backbones than a T5, which their files name
_GEOMETRY = ("shuffled", "random", "part_of_speech", "no_geometry", "training_anchors")
_TAXONOMY = ("taxonomy_shuffled", "taxonomy_part_of_speech", "taxonomy_random")
_FEATURES = ("features_linear", "features_random", "features_constant", "gate_source")
CONTROLS = (*_TAXONOMY, *_GEOMETRY, *_FEATURES, "fixed_alpha", *METHODS)
_MODULATORS = ("LerpModulator", "FieldModulator")
_SET_BY_SEEDS = ("seed_everything", "data.order_seed", "model.seed", "model.modulator.seed", "model.geometry.seed",
                 "model.objective.seed")  # fmt: skip
_SET_HERE = {
    **dict.fromkeys(_SET_BY_SEEDS, "--seeds says it for every run"),
    "pentachoron.stop": "it is false here, so that all runs have the same budget",
    "resume": "the same command resumes by itself",
    "ckpt_path": "the same command resumes by itself",
}

SEEDS = "0,1,2"  # by default
OF_A_RUN = "this run"  # the treatment's row, where it was trained before its controls
Options = tuple[tuple[str, str], ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Control:
    """One row of the table.

    Attributes:
        name: of its folder and its row.
        configs: after the treatment's, which they override.
        options: those that define it; they override what a user has typed.
        decides: settings that are its own.
        method: which of `METHODS` stands in the modulator's place; "" where none does.
    """

    name: str
    configs: tuple[Path, ...] = ()
    options: Options = ()
    decides: Mapping[str, Any] | None = None
    method: str = ""

    @property
    def is_adapter(self) -> bool:
        """Whether its number of parameters is to be the modulator's."""
        return self.method in ADAPTERS

    def lets_through(self, option: str) -> bool:
        """Whether a user's option applies: not what the control decides itself, nor a modulator that it lacks."""
        name = setting(option)
        if name in (self.decides or {}):
            return False
        return not (self.method and name.startswith(("model.modulator", "model.geometry")))


@dataclass(frozen=True)
class Request:
    """A valid command line; the treatment is the first of the controls.

    Attributes:
        settings: of the treatment, by name: all configurations, then the options.
        of: the run folder of a treatment that has been trained already; None: it is to be trained.
    """

    configs: tuple[Path, ...]
    options: Options
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]
    controls: tuple[Control, ...]
    left_out: tuple[str, ...]
    of: Path | None = None


def read(args: argparse.Namespace) -> Request:
    """Check the parsed command line.

    Raises:
        ValueError: something a user can mend, in one line.
    """
    if args.of is not None:
        return _read_of(args)
    if not args.config:
        raise ValueError("--config is missing; name the configuration to run with controls, such as --config lerp.yaml")
    seeds = read_seeds(args.seeds)
    alphas, epochs, keeps = read_alphas(args.alphas), read_epochs(args.epochs), read_keeps(args.keep)
    own = ("config", "of", "seeds", "controls", "alphas", "epochs", "keep", "jobs", "output")
    options = read_options(args.options, own)
    configs = tuple(find_config(name) for name in args.config)
    settings: dict[str, Any] = {}
    for path in configs:
        settings |= leaves(read_yaml(path))
    settings.pop("output", None)
    settings |= {setting(name): yaml.safe_load(value) for name, value in options}
    modulator = str(settings.get("model.modulator", "")).rpartition(".")[2]
    if modulator not in _MODULATORS:
        said = f"model.modulator is {modulator}" if modulator else f"{configs[-1]} configures no model.modulator"
        raise ValueError(f"--config: {said}; there are controls for {' and '.join(_MODULATORS)}")
    names, left_out = choose(args.controls, settings)
    stem = configs[0].stem
    treatment = Control(
        "treatment" if stem in {*CONTROLS, "controls"} or stem.startswith(("alpha_", "epochs_", "keep_")) else stem
    )
    fixed = [fixed_alpha(text, modulator, settings) for text in alphas]
    lengths = [of_length(text, settings) for text in epochs]
    if keeps and not _is_relational(settings):
        raise ValueError("--keep: it is a factor of model.objective RelationalObjective; add --config relational.yaml")
    overlays = [overlay(name, settings) for name in names]
    kept = [kept_near(control, text) for text in keeps for control in (treatment, *overlays)
            if control is treatment or control.method]  # fmt: skip
    controls = (treatment, *overlays, *fixed, *lengths, *kept)
    return Request(configs, options, settings, seeds, controls, left_out)


def _read_of(args: argparse.Namespace) -> Request:
    """Controls of a run that is there: its configuration and its seeds."""
    run: Path = args.of
    given = (args.config, args.seeds, args.alphas, args.epochs, args.keep, args.options)
    if given != ([], SEEDS, "", "", "", []):
        raise ValueError(
            "--of: the run's own configuration and seeds are used; of the other options --controls and --jobs"
        )
    if not (run / "config.yaml").is_file():
        raise ValueError(f"--of: {run} is not the folder of a run; name one, as train.py leaves it")
    settings = leaves(read_yaml(run / "config.yaml"))
    return of_run(run, settings, args.controls)


def of_run(run: Path, settings: Mapping[str, Any], controls: str | None) -> Request:
    """Controls of a run that has been trained, by the names of these.

    Raises:
        ValueError: it has no modulator, or a control does not apply to it.
    """
    if _modulator(settings) not in _MODULATORS:
        raise ValueError(f"--controls: there are controls for {' and '.join(_MODULATORS)}, and this run trains another")
    names, left_out = choose(controls, settings)
    seed = settings.get("seed_everything")
    seeds = (seed if isinstance(seed, int) and not isinstance(seed, bool) else 0,)
    treatment, overlays = Control(OF_A_RUN), [overlay(name, settings) for name in names]
    return Request((run / "config.yaml",), (), settings, seeds, (treatment, *overlays), left_out, run)


def read_seeds(text: str) -> tuple[int, ...]:
    """Seeds with commas between them.

    >>> read_seeds("0,1, 2")
    (0, 1, 2)
    """
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if not (word.isascii() and word.isdigit() and int(word) < 2**32)]
    if wrong:
        raise ValueError(f"--seeds: {wrong[0]!r} is no seed; they are integers from 0 to 2³² − 1, as in --seeds 0,1,2")
    return _distinct("--seeds", [int(word) for word in words])


def read_alphas(text: str) -> tuple[str, ...]:
    """Injection strengths with commas between them, each in its shortest form.

    >>> read_alphas("0.05,0.10"), read_alphas("")
    (('0.05', '0.1'), ())
    """
    what = "is no injection strength; each lies between 0 and 1, as in 0.01,0.29154"
    return _numbers("--alphas", text, lambda value: 0 < value < 1, what)


def read_epochs(text: str) -> tuple[str, ...]:
    """Lengths of training in epochs, with commas between them.

    >>> read_epochs("5, 30"), read_epochs("")
    (('5', '30'), ())
    """
    words = [word.strip() for word in text.split(",") if text.strip()]
    wrong = [word for word in words if not (word.isascii() and word.isdigit() and int(word) >= 1)]
    if wrong:
        raise ValueError(f"--epochs: {wrong[0]!r} is no length of training; each is an integer from 1, as in 5,30")
    return tuple(map(str, _distinct("--epochs", [int(word) for word in words])))


def read_keeps(text: str) -> tuple[str, ...]:
    """Factors λ_keep with commas between them, each in its shortest form.

    >>> read_keeps("0, 0.30"), read_keeps("")
    (('0', '0.3'), ())
    """
    what = "is no factor; each is a number of at least 0, as in 0,0.3,1,3"
    return _numbers("--keep", text, lambda value: 0 <= value < float("inf"), what)


def _numbers(option: str, text: str, fits: Callable[[float], bool], what: str) -> tuple[str, ...]:
    found = []
    for word in (word.strip() for word in text.split(",") if text.strip()):
        try:
            value = float(word)
        except ValueError:
            value = float("nan")
        if not fits(value):
            raise ValueError(f"{option}: {word!r} {what}")
        found.append(f"{value:g}")
    return _distinct(option, found)


def read_options(words: Sequence[str], own: Sequence[str]) -> Options:
    """Options that go to every run, as (name without dashes, value).

    >>> read_options(["--trainer.max_epochs", "3", "--data.batch_size=8"], [])
    (('trainer.max_epochs', '3'), ('data.batch_size', '8'))
    """
    found: list[tuple[str, str]] = []
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            raise ValueError(f"{word!r} belongs to no option; options are given as --name value")
        if reason := _SET_HERE.get(setting(name)):
            raise ValueError(f"--{name} cannot be given here: {reason}")
        if "." not in name:
            raise ValueError(f"--{name} is no option{near(name, own, '--')}")
        if not equals:
            if not left or left[0].startswith("--"):
                raise ValueError(f"--{name}: a value is missing")
            value = left.pop(0)
        found.append((name, value))
    return tuple(found)


def choose(text: str | None, settings: Mapping[str, Any]) -> tuple[list[str], tuple[str, ...]]:
    """Names of the controls, and a line for those that are left out by default."""
    possible = applicable(settings)
    peft = importlib.util.find_spec("peft") is not None
    if text is None:
        names = [name for name in possible if peft or name not in ADAPTERS]
        missing = [name for name in possible if name not in names]
        hint = f"{' and '.join(missing)} left out: peft is not installed (pip install -e '.[peft]')"
        return names, (hint,) if missing else ()
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    for name in names:
        if name not in CONTROLS:
            raise ValueError(
                f"--controls: {name!r} is no control{near(name, CONTROLS)}; there are {', '.join(CONTROLS)}"
            )
        if name not in possible:
            raise ValueError(
                f"--controls: {name} does not apply to {_why_not(name, settings)}; these do: {', '.join(possible)}"
            )
        if name in ADAPTERS and not peft:
            raise ValueError(f"--controls: {name} needs peft; pip install -e '.[peft]'")
    return list(_distinct("--controls", names)), ()


def applicable(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The controls that mean something for a treatment with these settings. IA³ has too few parameters for LERP."""
    relational, lerp = _is_relational(settings), _modulator(settings) == "LerpModulator"
    return (
        *(_TAXONOMY if relational else ()),
        *(_GEOMETRY if lerp else ()),
        *(_FEATURES if _is_centred(settings) else ()),
        "fixed_alpha",
        "lora",
        *(("lora_slow",) if lerp and relational else ()),
        *(() if lerp else ("ia3",)),
        *(("full",) if relational else ()),
    )


def _why_not(name: str, settings: Mapping[str, Any]) -> str:
    modulator = _modulator(settings)
    if name in _TAXONOMY or name == "full":
        return "this objective; add --config relational.yaml"
    if name in _GEOMETRY:
        return f"{modulator}, which has no geometric embedding"
    if name == "lora_slow":
        return "this rate, or this few parameters; it is for lerp.yaml"
    if name in _FEATURES:
        return f"{modulator}, whose gates are not centred" if modulator == "FieldModulator" else modulator
    return f"{modulator}, which has many more parameters"


def _modulator(settings: Mapping[str, Any]) -> str:
    return str(settings.get("model.modulator", "")).rpartition(".")[2]


def _is_relational(settings: Mapping[str, Any]) -> bool:
    return str(settings.get("model.objective", "")).endswith("RelationalObjective")


def _is_centred(settings: Mapping[str, Any]) -> bool:
    return _modulator(settings) == "FieldModulator" and settings.get("model.modulator.gate") == "centred"


def overlay(name: str, settings: Mapping[str, Any]) -> Control:
    """A control from configs/controls/. A method is trained on the treatment's kind of backbone."""
    path = OVERLAYS / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"--controls: {name}: there is no {path}")
    decides = leaves(read_yaml(path))
    if name not in METHODS:
        return Control(name, (path,), (), decides)
    for kind in _KINDS:
        if str(settings.get("model", "")).endswith(f"Modulated{kind}"):
            trains = decides["model"].removesuffix("T5") + kind
            return Control(name, (path,), (("model", trains),), {**decides, "model": trains}, name)
    return Control(name, (path,), (), decides, name)


def kept_near(control: Control, keep: str) -> Control:
    """The treatment, or a method in its place, with another λ_keep: a point of its front."""
    option = ("model.objective.init_args.keep", keep)
    decides = {**(control.decides or {}), setting(option[0]): float(keep)}
    name = f"{control.name}_keep_{keep}"
    return Control(name, control.configs, (*control.options, option), decides, control.method)


def fixed_alpha(text: str, modulator: str, settings: Mapping[str, Any]) -> Control:
    """The treatment at a frozen α."""
    lowest = settings.get("model.modulator.alpha_min")
    if lowest is None and modulator == "FieldModulator":
        lowest = FIELD_DEFAULTS[str(settings.get("model.modulator.gate", "source"))]["alpha_min"]
    if float(text) <= float(lowest or 0.0):
        raise ValueError(f"--alphas: {text} is not above model.modulator.alpha_min, {lowest}")
    base = overlay("fixed_alpha", settings)
    options = [("model.modulator.init_args.initial_alpha", text)]
    if modulator == "FieldModulator":
        options.append(("model.modulator.init_args.alpha_max", "1.0"))
    decides = {**(base.decides or {}), **{setting(name): float(value) for name, value in options}}
    return Control(f"alpha_{text}", base.configs, tuple(options), decides)


def of_length(epochs: str, settings: Mapping[str, Any]) -> Control:
    """The treatment trained for another number of epochs."""
    steps, least = settings.get("trainer.max_steps"), settings.get("trainer.min_epochs")
    if steps not in (None, -1):
        raise ValueError(f"--epochs: trainer.max_steps is {steps}, which bounds a training too; leave it out")
    if least is not None and int(epochs) < int(least):
        raise ValueError(f"--epochs: {epochs} is below trainer.min_epochs, {least}")
    option = ("trainer.max_epochs", epochs)
    return Control(f"epochs_{epochs}", (), (option,), {option[0]: int(epochs)})


def _distinct(option: str, values: Sequence[T]) -> tuple[T, ...]:
    twice = [value for i, value in enumerate(values) if value in values[:i]]
    if twice:
        raise ValueError(f"{option}: {twice[0]} is named twice")
    return tuple(values)
