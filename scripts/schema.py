"""Writes cli/schema.json, and the comments in configs/, from the constructors' annotations and docstrings.

    python scripts/schema.py            # write them again
    python scripts/schema.py --check    # 1 if they are not what the code says

The schema is what the command line checks a configuration by before anything heavy is imported, and what an editor
completes YAML by (`# yaml-language-server: $schema=…`). A configuration may name no class that it does not list.
"""

import importlib
import inspect
import json
import re
import sys
import typing
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docstring_parser

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from callbacks.loggers.wandb import Name, Project
from modulant.settings import Pattern, schema_of

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "cli" / "schema.json"
# Configurations whose comments are the docstrings'.
COMMENTED = (
    *("causal.yaml", "encoder.yaml", "field.yaml", "lerp.yaml", "pretrain_mini.yaml"),
    *sorted(f"wavegpt/{path.name}" for path in (ROOT / "configs" / "wavegpt").glob("*.yaml")),
)

MODELS = (
    "modulators.AdaptedT5",
    "modulators.ModulatedT5",
    "modulators.TunedT5",
    "modulators.PretrainT5",
    *(f"modulators.{name}{kind}" for kind in ("Encoder", "CausalLM") for name in ("Adapted", "Modulated", "Tuned")),
    "wavegpt.WaveLM",
)
MODULATORS = ("modulators.FieldModulator", "modulators.LerpModulator")
OBJECTIVES = ("modulators.LemmaObjective", "modulators.RelationalObjective", "modulators.WeightedObjectives")
DATA = ("datamodules.GlossDataModule", "datamodules.TextDataModule", "datamodules.WordNetDataModule")
GEOMETRY = "modulators.Geometry"
# Sections of a model, each with the dataclass that it is made of.
SECTIONS_OF = {
    "wavegpt.WaveLM": {
        "embedding": "wavegpt.EmbeddingConfig",
        "attention": "wavegpt.AttentionConfig",
        "mlp": "wavegpt.MlpConfig",
        "loss": "wavegpt.LossConfig",
        "optimizer": "wavegpt.OptimizerConfig",
        "writing": "wavegpt.WritingConfig",
    },
    "wavegpt.EmbeddingConfig": {"anneal": "wavegpt.AnnealConfig"},
    "wavegpt.OptimizerConfig": {"project": "wavegpt.ProjectConfig"},
}
TRAINER = "lightning.pytorch.Trainer"
# Key in a configuration, and the callback that it configures.
SECTIONS = {
    "checkpoint": "callbacks.RunCheckpoint",
    "alpha_convergence": "callbacks.AlphaConvergence",
    "relational": "callbacks.RelationalAlignment",
    "pentachoron": "callbacks.PentachoronHealth",
    "similarity": "callbacks.WordSimilarity",
    "modulator_health": "callbacks.ModulatorHealth",
    "divergence": "callbacks.Divergence",
    "report": "callbacks.RunReport",
    "talk": "callbacks.Talk",
}
# What a trainer may be built of. What takes a function to call is not among them, nor what would fight with this
# project's own progress bar and batches; this project's callbacks are in every run anyway.
BUILT_OF = {
    "callbacks": (
        "lightning.pytorch.callbacks.DeviceStatsMonitor",
        "lightning.pytorch.callbacks.EarlyStopping",
        "lightning.pytorch.callbacks.GradientAccumulationScheduler",
        "lightning.pytorch.callbacks.LearningRateMonitor",
        "lightning.pytorch.callbacks.ModelCheckpoint",
        "lightning.pytorch.callbacks.ModelSummary",
        "lightning.pytorch.callbacks.RichModelSummary",
        "lightning.pytorch.callbacks.StochasticWeightAveraging",
    ),
    "logger": (
        "callbacks.RunWandb",
        "lightning.pytorch.loggers.CSVLogger",
        "lightning.pytorch.loggers.CometLogger",
        "lightning.pytorch.loggers.MLFlowLogger",
        "lightning.pytorch.loggers.TensorBoardLogger",
        "lightning.pytorch.loggers.WandbLogger",
    ),
    "profiler": (
        "lightning.pytorch.profilers.AdvancedProfiler",
        "lightning.pytorch.profilers.PyTorchProfiler",
        "lightning.pytorch.profilers.SimpleProfiler",
    ),
    "strategy": (
        "callbacks.ShardedStrategy",
        "lightning.pytorch.strategies.DDPStrategy",
        "lightning.pytorch.strategies.FSDPStrategy",
        "lightning.pytorch.strategies.SingleDeviceStrategy",
    ),
    "plugins": (
        "lightning.pytorch.plugins.DoublePrecision",
        "lightning.pytorch.plugins.HalfPrecision",
        "lightning.pytorch.plugins.MixedPrecision",
        "lightning.pytorch.plugins.environments.KubeflowEnvironment",
        "lightning.pytorch.plugins.environments.LSFEnvironment",
        "lightning.pytorch.plugins.environments.LightningEnvironment",
        "lightning.pytorch.plugins.environments.MPIEnvironment",
        "lightning.pytorch.plugins.environments.SLURMEnvironment",
        "lightning.pytorch.plugins.environments.TorchElasticEnvironment",
    ),
}
NULL = {"type": "null"}
WHOLE = {"type": "integer", "minimum": 0}
# typing keeps one Union of int and float, in the order that it met first: a parser may make 3 of batches 3.0, and a run
# keep that.
_SHARE = {"type": "number", "minimum": 0, "maximum": 1, "title": "a share between 0 and 1"}
_WHOLE_FLOAT = {"type": "number", "minimum": 1, "multipleOf": 1, "title": "an integer of at least 0"}
BATCHES = {"anyOf": [WHOLE, _SHARE, _WHOLE_FLOAT, NULL]}
TIME = (
    {"type": "string", "pattern": r"\s*\d+(:\d+){3}\s*", "title": "a time, DD:HH:MM:SS"},
    {
        "type": "object",
        "additionalProperties": False,
        "properties": dict.fromkeys(("weeks", "days", "hours", "minutes", "seconds"), WHOLE),
    },
)
# Ranges that Lightning does not annotate, and arguments that this project settles itself.
OF_TRAINER: dict[str, Any] = {
    "accumulate_grad_batches": {"type": "integer", "minimum": 1},
    "barebones": {"enum": [False], "title": "false: a run is always measured and saved"},
    "check_val_every_n_epoch": {"anyOf": [{"type": "integer", "minimum": 1}, NULL]},
    "default_root_dir": {"anyOf": [{"type": "string"}, NULL]},
    "enable_checkpointing": {"enum": [True, None], "title": "true or null: a run is always saved (see checkpoint)"},
    "fast_dev_run": {"anyOf": [{"type": "boolean"}, WHOLE]},
    "gradient_clip_algorithm": {"enum": ["norm", "value", None], "title": "norm or value"},
    "gradient_clip_val": {"anyOf": [{"type": "number", "minimum": 0}, NULL]},
    "limit_predict_batches": BATCHES,
    "limit_test_batches": BATCHES,
    "limit_train_batches": BATCHES,
    "limit_val_batches": BATCHES,
    "log_every_n_steps": {"anyOf": [WHOLE, NULL]},
    "max_epochs": {"anyOf": [{"type": "integer", "minimum": -1}, NULL]},
    "max_steps": {"type": "integer", "minimum": -1},
    "min_epochs": {"anyOf": [WHOLE, NULL]},
    "min_steps": {"anyOf": [WHOLE, NULL]},
    "num_nodes": {"type": "integer", "minimum": 1},
    "num_sanity_val_steps": {"anyOf": [{"type": "integer", "minimum": -1}, NULL]},
    "overfit_batches": BATCHES,
    "reload_dataloaders_every_n_epochs": WHOLE,
    "devices": {
        "anyOf": [
            {"enum": ["auto", -1]},
            {"type": "integer", "minimum": 1},
            {"type": "array", "items": WHOLE},
            {"type": "string", "pattern": r"auto|-1|[1-9]\d*|\d+(, ?\d+)+,?|\d+,"},
        ],
        "title": "auto, how many devices, or a list of their numbers",
    },
    "max_time": {"anyOf": [NULL, *TIME]},
    "val_check_interval": {"anyOf": [*BATCHES["anyOf"], *TIME]},
}
# What the libraries would refuse, some of it only once a run has begun.
ABOVE_ZERO = {"type": "number", "exclusiveMinimum": 0}
EXTREME: dict[str, Any] = {"enum": ["min", "max"]}
WANDB_ID = {
    "anyOf": [{"type": "string", **Pattern(r"[^:;,#?/'\s]+", "text without : ; , # ? / ' or space").keywords()}, NULL]
}
OF_PARTS: dict[str, dict[str, Any]] = {
    "lightning.pytorch.callbacks.EarlyStopping": {"mode": EXTREME},
    "lightning.pytorch.callbacks.ModelCheckpoint": {"mode": EXTREME},
    "lightning.pytorch.callbacks.StochasticWeightAveraging": {
        "swa_lrs": {"anyOf": [ABOVE_ZERO, {"type": "array", "items": ABOVE_ZERO}]}
    },
    "lightning.pytorch.loggers.WandbLogger": {
        "project": {"anyOf": [schema_of(Project), NULL]},
        "name": {"anyOf": [schema_of(Name), NULL]},
        "id": WANDB_ID,
        "version": WANDB_ID,
    },
}
# What belongs to no class.
TOP_LEVEL: dict[str, Any] = {
    "seed_everything": {
        "anyOf": [{"type": "boolean"}, {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}],
        "description": "seed of Python's, NumPy's and torch's generators.",
    },
    "output": {"anyOf": [{"type": "string"}, NULL], "description": "run folder."},
    "resume": {"anyOf": [{"type": "string"}, NULL], "description": "run folder to resume."},
    "ckpt_path": {},  # refused by name: a checkpoint's hyper-parameters would win over what is given
    "weights_only": {"anyOf": [{"type": "boolean"}, NULL]},
    "verbose": {"type": "boolean"},
    "return_predictions": {"anyOf": [{"type": "boolean"}, NULL]},
}


def arguments_of(path: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Schema of a constructor's arguments: types and ranges, defaults, descriptions.

    Args:
        path: the name that the class is exported by.
        without: arguments that no configuration gives.
    """
    package, _, name = path.rpartition(".")
    kind = getattr(importlib.import_module(package), name)
    hints = _hints(kind.__init__)
    # What a class leaves unsaid, those of its package that it is made of say.
    root = kind.__module__.partition(".")[0]
    made_of = [base for base in reversed(kind.__mro__) if base.__module__.partition(".")[0] == root]
    texts = (*(inspect.getdoc(base) or "" for base in made_of), inspect.getdoc(kind.__init__) or "")
    described = {p.arg_name: p.description for text in texts for p in docstring_parser.parse(text).params}
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": {}}
    inherited = kind.__init__ is object.__init__
    parameters = [] if inherited else list(inspect.signature(kind.__init__).parameters.values())[1:]
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            schema["additionalProperties"] = True
            continue
        if parameter.name in without:
            continue
        own = dict(schema_of(hints[parameter.name]) if parameter.name in hints else {})
        if text := described.get(parameter.name):
            own["description"] = " ".join(text.split("\n\n")[0].replace("``", "").split())
        if parameter.default is parameter.empty:  # once files are merged: an overlay may leave it out
            schema.setdefault("x-required", []).append(parameter.name)
        elif _is_plain(parameter.default):
            own["default"] = parameter.default
        schema["properties"][parameter.name] = own
    return schema


def _hints(function: Any) -> dict[str, Any]:
    """A function's annotations, but for those with a name that only a type checker imports."""
    found: dict[str, Any] = {}
    names = getattr(inspect.unwrap(function), "__globals__", {})
    for name, annotation in getattr(function, "__annotations__", {}).items():
        with suppress(NameError):
            one = SimpleNamespace(__annotations__={name: annotation})
            found |= typing.get_type_hints(one, names, include_extras=True)
    return found


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | list | tuple)


def class_of(paths: tuple[str, ...]) -> list[dict[str, Any]]:
    """Alternatives for a place where one of some classes is named, with its arguments."""
    return [
        {
            "type": "object",
            "properties": {
                "class_path": {"enum": [path, path.rpartition(".")[2]]},
                "init_args": {"$ref": f"#/$defs/{path}"},
                "dict_kwargs": {"type": "object"},
            },
        }
        for path in paths
    ]


def schema() -> dict[str, Any]:
    """The whole schema."""
    from lightning.pytorch.accelerators import AcceleratorRegistry
    from lightning.pytorch.strategies import StrategyRegistry

    plain = (*MODELS, *OBJECTIVES, *DATA, *SECTIONS.values(), *(path for paths in BUILT_OF.values() for path in paths))
    defs = {path: arguments_of(path) for path in plain}
    defs |= {path: arguments_of(path, ("stream",)) for path in MODULATORS}
    sections = (path for own in SECTIONS_OF.values() for path in own.values())
    defs |= {path: arguments_of(path) for path in (GEOMETRY, *sections)}
    for owner, own in SECTIONS_OF.items():
        for name, path in own.items():
            _replace(defs[owner]["properties"], name, {"$ref": f"#/$defs/{path}"})
    for path, arguments in OF_PARTS.items():
        for name, own in arguments.items():
            _replace(defs[path]["properties"], name, own)
    for modulated in (path for path in MODELS if ".Modulated" in path):
        model = defs[modulated]["properties"]
        _replace(model, "modulator", {"anyOf": class_of(MODULATORS)})
        _replace(model, "geometry", {"anyOf": [{"$ref": f"#/$defs/{GEOMETRY}"}, NULL]})
    for trained in set(MODELS) - {"modulators.PretrainT5", "wavegpt.WaveLM"}:
        _replace(defs[trained]["properties"], "objective", {"anyOf": [*class_of(OBJECTIVES), NULL]})
    summed = {"type": "array", "items": {"anyOf": class_of(OBJECTIVES)}}
    _replace(defs["modulators.WeightedObjectives"]["properties"], "objectives", summed)
    trainer = arguments_of(TRAINER)
    several = ("callbacks", "logger", "plugins")
    words: dict[str, list[Any]] = {
        "logger": [{"type": "boolean"}],
        "profiler": [{"enum": ["simple", "advanced", "pytorch"]}],
        "strategy": [{"enum": ["auto", *sorted(StrategyRegistry.available_strategies())]}],
    }
    for name, paths in BUILT_OF.items():
        one = class_of(paths)
        lists: list[Any] = [{"type": "array", "items": {"anyOf": one}}] if name in several else []
        _replace(trainer["properties"], name, {"anyOf": [*one, *lists, *words.get(name, []), NULL]})
    known = ["auto", *sorted({"gpu", *AcceleratorRegistry.available_accelerators()})]
    for name, own in {**OF_TRAINER, "accelerator": {"enum": known}}.items():
        _replace(trainer["properties"], name, own)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A configuration of modulant",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "model": {"anyOf": class_of(MODELS)},
            "data": {"anyOf": class_of(DATA)},
            "trainer": trainer,  # not among $defs, which are the classes that may be named
            **{key: {"$ref": f"#/$defs/{path}"} for key, path in SECTIONS.items()},
            **TOP_LEVEL,
        },
        "$defs": defs,
    }


def _replace(properties: dict[str, Any], name: str, own: dict[str, Any]) -> None:
    kept = {key: properties[name][key] for key in ("description", "default") if key in properties[name]}
    properties[name] = own | kept


_LINE = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?P<value> [^#]*?)?(?P<gap> +)# (?P<comment>.*)$")


def commented(text: str, found: dict[str, Any]) -> str:
    """A configuration with the docstrings' first sentences as comments; a trainer's own stay, Lightning's are long."""
    lines, above = [], list[tuple[int, str]]()
    kinds: dict[str, str] = {}
    for line in text.splitlines():
        bare = re.match(r"^( *)(\w+):(?: +(\S+))?", line)
        if bare is not None:
            indent, key = len(bare[1]), bare[2]
            above = [(i, name) for i, name in above if i < indent]
            place = ".".join(name for _, name in above if name != "init_args")
            if key == "class_path":
                kinds[place] = str(bare[3])
            match = _LINE.match(line)
            above_it, _, last = place.rpartition(".")
            sections = SECTIONS_OF.get(kinds.get(above_it, ""), {})
            if last in sections and place not in kinds:
                kinds[place] = sections[last]
            owner = kinds.get(place) or {**SECTIONS, "model.geometry": GEOMETRY}.get(place)
            known = found["$defs"].get(owner, {"properties": {}})["properties"]
            said = first_sentence(known.get(key, {}).get("description", ""))
            if match is not None and said:
                line = line[: match.start("comment")] + said
            above.append((indent, key))
        lines.append(line)
    return "\n".join(lines) + "\n"


def first_sentence(text: str) -> str:
    """
    >>> first_sentence("width, D. Of all."), first_sentence("share in 0.1 steps.")
    ('width, D', 'share in 0.1 steps')
    """
    return re.split(r"\. (?=[A-Z`])", text)[0].rstrip(".")


def wanted() -> dict[Path, str]:
    """File → what it should hold."""
    found = schema()
    files = {SCHEMA: json.dumps(found, indent=1, ensure_ascii=False) + "\n"}
    for name in COMMENTED:
        path = ROOT / "configs" / name
        files[path] = commented(path.read_text(encoding="utf-8"), found)
    return files


def main() -> int:
    stale = {p: text for p, text in wanted().items() if not p.is_file() or p.read_text(encoding="utf-8") != text}
    for path, text in stale.items():
        print(path.relative_to(ROOT))
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
