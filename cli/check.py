"""Everything that can be known to be wrong with a command before anything heavy is imported.

First each key and value by itself (`cli.configuration.schema`). Then the values together, as they will be once all
files are merged and defaults are filled in, and the files and folders that are named. What only the libraries know (a
device that is not there, a hub that has no such model) is left to them: the parser and the constructors check
everything again.
"""

import importlib.util
import math
import os
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from cli.command import Command
from cli.configuration import own
from cli.configuration.files import Config
from cli.configuration.saved import SavedConfig, Split
from cli.configuration.schema import Merged, UnlistedClassError, short
from cli.folder import RunFolder
from datamodules.arguments import (
    STANDARD_INPUT,
    check_corpus,
    check_fractions,
    check_text_vocabulary,
    check_vocabulary,
    check_windows,
    piped_prompts,
    read_prompts,
)
from modulant.backbones.sizes import check_backbone, check_layers, read_sizes
from modulant.reports.choosing import check_choice
from modulant.settings import describe
from modulators.arguments import (
    NO_MASKS,
    GenerationSettings,
    check_alignment,
    check_cache,
    check_field,
    check_geometry_file,
    check_objective,
    check_precision,
    check_relational,
    check_steps,
    refuse_geometry,
    refuse_masked,
)
from probes.configurations import leaves
from probes.controls.settings import of_run
from wavegpt.config import WaveConfig

# Classes that may be named, and the packages that they need beyond those of every installation.
_NEEDS = {
    "RunWandb": "wandb",
    "WandbLogger": "wandb",
    "CometLogger": "comet_ml",
    "MLFlowLogger": "mlflow",
    "MPIEnvironment": "mpi4py",
    **dict.fromkeys(("AdaptedCausalLM", "AdaptedEncoder", "AdaptedT5"), "peft"),
}
# Variables of W&B that win where a configuration is silent.
_WANDB = (
    ("WANDB_MODE", "online|offline|disabled|run|dryrun|shared", "online, offline or disabled"),
    ("WANDB_RUN_ID", r"[^:;,#?/'\s]+", "text without : ; , # ? / ' or space"),
)
# By the end of a class's name: what trains on models of other families than T5.
_ENCODER, _CAUSAL = "Encoder", "CausalLM"
# What is trained on text, and what has it.
_LANGUAGE, _TEXT = "wavegpt.WaveLM", "datamodules.TextDataModule"
# Lightning's plugins that cast what learns.
_CASTS = ("HalfPrecision", "DoublePrecision", "TransformerEnginePrecision", "BitsandbytesPrecision")


def check(command: Command) -> dict[str, Any]:
    """Check a command line, and merge its configurations and options into what the parser is given.

    Raises:
        ValueError: whatever a user can mend, in one line that names the key or the file.
    """
    merged = merge(command)
    if not command.prints_config:  # which is to be looked at, or finished elsewhere
        _check_places(merged)
        _check_packages(merged)
        check_trainer(merged.config.get("trainer", {}))
        if command.subcommand == "fit":
            _check_choice(merged)
        _check_together(merged.at("model").name, merged.at("data").name)
        _check_model(merged, command.subcommand)
        _check_data(merged, command.subcommand)
        if command.subcommand == "fit":
            _check_similarity(merged.at("similarity").values.get("files"), merged.config.get("trainer", {}))
        if command.controls is not None:
            _check_controls(command.controls, merged.config)
        _check_folders(command)
    return merged.config


def merge(command: Command) -> Merged:
    """Configurations and options in their order, each key and value checked.

    Raises:
        ValueError: an unknown key, a value that does not fit, a class that may not be named, no model or data, a
            required value that is missing, or what decides the split of a run that is resumed was changed.
    """
    supplied = own.classes(command.trusted)
    merged = Merged(supplied)
    split = None
    try:
        for config in command.configs:
            merged.add(_with_split(config), f"{config.path}: ")
            if isinstance(config, SavedConfig):
                split = Split(merged)
        for name, value in command.options:
            merged.add_option(name, value)
    except UnlistedClassError as error:
        if error.path in ("model.modulator", "model.objective") and (
            hint := own.hint(error.name, command.resume, command.trusted)
        ):
            raise ValueError(error.text + hint) from error
        raise
    for key in ("model", "data"):
        if not merged.at(key).name:
            raise ValueError(f"{key}: nothing is configured; name a configuration, such as --config field.yaml")
    for _, name, _ in merged.classes():
        own.refuse_abstract(name, supplied.get(name, {}).get(own.LACKS, ()))
    for path, schema in merged.missing():
        wanted = "a modulator's class" if path == "model.modulator" else describe(schema)
        raise ValueError(f"{path} is missing; it must be {wanted}")
    if split is not None:
        split.check(merged)
    return merged


def _check_places(merged: Merged) -> None:
    """A run is one folder: whatever looks for its checkpoints, first of all --resume, looks there."""
    for place, key in (("checkpoint", "dirpath"), ("trainer", "default_root_dir")):
        if (named := (merged.config.get(place) or {}).get(key)) is not None:
            raise ValueError(
                f"{place}.{key} is {short(named)}; a run and its checkpoints lie in one folder, where --resume finds "
                "them: leave it out, and name that folder with --output"
            )


def _check_packages(merged: Merged) -> None:
    """Refuse a class whose package is not installed."""
    for path, name, _ in merged.classes():
        needed = _NEEDS.get(name.rpartition(".")[2])
        if needed is not None and importlib.util.find_spec(needed) is None:
            package = needed.replace("_", "-")
            raise ValueError(f"{path}: {name} needs {package}, which is not installed; pip install {package}")
        if needed == "wandb":
            _check_wandb_environment()


def _check_wandb_environment() -> None:
    """Refuse what W&B would refuse of its own variables once a run has begun."""
    for name, form, words in _WANDB:
        if (value := os.environ.get(name)) and not re.fullmatch(form, value):
            raise ValueError(f"trainer.logger: the environment's {name} is {short(value)}; it must be {words}")


def _check_choice(merged: Merged) -> None:
    """Refuse to choose the best checkpoint, or to stop, by the pairs that are reported."""
    fraction = merged.at("data").values.get("test_fraction")
    watched = {"checkpoint.monitor": (merged.config.get("checkpoint") or {}).get("monitor")}
    for i, callback in enumerate(merged.config.get("trainer", {}).get("callbacks") or []):
        if isinstance(callback, Mapping):
            watched[f"trainer.callbacks[{i}].monitor"] = (callback.get("init_args") or {}).get("monitor")
    for setting, key in watched.items():
        if isinstance(key, str):
            check_choice(key, setting, fraction)


def _with_split(config: Config) -> Mapping[str, Any]:
    """Content of a configuration; one that a run saved before there was ``data.split`` means ``entry``."""
    data = config.content.get("data")
    of_a_run = config.path.stem == "config" and (config.path.parent / "checkpoints").is_dir()
    if not of_a_run or not isinstance(data, Mapping) or not isinstance(data.get("init_args"), Mapping):
        return config.content
    if not str(data.get("class_path")).endswith(".WordNetDataModule"):
        return config.content
    return {**config.content, "data": {**data, "init_args": {"split": "entry", **data["init_args"]}}}


def check_trainer(given: Mapping[str, Any]) -> None:
    """Refuse combinations of a trainer's arguments that Lightning refuses late, or not in words that name the key.

    Raises:
        ValueError: one of these.
    """
    for smallest, largest in (("min_epochs", "max_epochs"), ("min_steps", "max_steps")):
        low, high = given.get(smallest), given.get(largest)
        if low is not None and high is not None and 0 <= high < low:
            raise ValueError(f"trainer.{smallest} is {low}; it must not be above {largest}, which is {high}")
    check_precision(given.get("precision"))
    plugins = given.get("plugins")
    for plugin in plugins if isinstance(plugins, list) else [plugins]:
        name = str(plugin.get("class_path") if isinstance(plugin, Mapping) else plugin).rpartition(".")[2]
        if name in _CASTS:
            check_precision(f"that of {name} (trainer.plugins)")
    interval = given.get("val_check_interval")
    if isinstance(interval, float) and given.get("check_val_every_n_epoch", 1) is None:
        raise ValueError(
            f"trainer.val_check_interval is {interval}; where check_val_every_n_epoch is null it must be a whole "
            "number of batches or a time"
        )
    if given.get("use_distributed_sampler") and _several(given):
        raise ValueError("trainer.use_distributed_sampler must be false: the DataModule shards the batches itself")


def _several(given: Mapping[str, Any]) -> bool:
    """Whether a trainer asks for several processes."""
    devices, nodes = str(given.get("devices", 1)), given.get("num_nodes", 1)
    return (devices.isdigit() and int(devices) > 1) or "," in devices.strip("[]").rstrip(",") or nodes > 1


def _check_controls(names: str, config: Mapping[str, Any]) -> None:
    """Refuse controls that do not apply to what is trained, before it is."""
    if _several(config.get("trainer", {})):
        raise ValueError(
            "--controls: a fit by several processes trains no controls after it; python probe.py controls --of RUN does"
        )
    of_run(Path(), leaves(dict(config)), names)


def _check_trains(given: Mapping[str, Any]) -> None:
    """Refuse a fit that is limited to nothing."""
    for key in ("max_epochs", "max_steps", "limit_train_batches"):
        if given.get(key) == 0 and not given.get("fast_dev_run"):
            raise ValueError(f"trainer.{key} is 0; a fit over 0 steps trains nothing: give it more, or use validate")


def planned_steps(given: Mapping[str, Any]) -> float | None:
    """Infinite where a fit has no end, which is known before the data; else None."""
    if given.get("fast_dev_run"):
        return None
    epochs, steps = given.get("max_epochs"), given.get("max_steps", -1)
    endless = epochs == -1 or (epochs is None and given.get("max_time") is not None)
    return math.inf if steps == -1 and endless else None


def _check_together(model: str, data: str) -> None:
    """Refuse a language model without text, and text for any other model."""
    if (model == _LANGUAGE) != (data == _TEXT):
        one, other = (_LANGUAGE, _TEXT) if model == _LANGUAGE else (model, "a WordNetDataModule")
        name = data.rpartition(".")[2]
        raise ValueError(
            f"data is a {name}, and model a {one.rpartition('.')[2]}; it must be {other.rpartition('.')[2]}"
        )


def _check_model(merged: Merged, subcommand: str) -> None:
    model, modulator = merged.at("model").values, merged.at("model.modulator").values
    name = merged.at("model.modulator").name.rpartition(".")[2]
    trains = merged.at("model").name
    any_family = trains.endswith((_ENCODER, _CAUSAL))
    if any_family:  # sizes have other names in each
        check_backbone(model["backbone"])
    if trains.endswith(_ENCODER) and subcommand == "predict":
        raise ValueError("predict: an encoder writes no answers; python probe.py alignment measures its run")
    sizes = read_sizes(model["backbone"]) if "backbone" in model and not any_family else None
    if sizes is not None and model["layers"] != "all":
        check_layers(model["layers"], sizes.n_layers, "model.layers")
    if trains == _LANGUAGE:
        _check_arm(model)
    if "cache" in model:
        check_cache(model["layers"], model["cache"], model["cache_folder"])
    try:
        if name == "FieldModulator":
            check_field(modulator)
        if name == "LerpModulator" and modulator["geometry"] is not None:
            check_geometry_file(Path(modulator["geometry"]))
    except ValueError as error:
        raise ValueError(f"model.modulator: {error}") from error
    if model.get("geometry") is not None:
        _check_geometry(merged, subcommand, name, None if sizes is None else sizes.d_model)
    if subcommand != "fit":
        return
    _check_trains(merged.config.get("trainer", {}))
    _check_objective(merged)
    if model.get("cache") is not None:
        _check_cached_batches(merged)
    if (steps := planned_steps(merged.config.get("trainer", {}))) is not None:
        check_steps(str(model.get("schedule", "cosine")), steps)  # pre-training knows no other


def _check_arm(model: Mapping[str, Any]) -> None:
    """Refuse options of a wave model that exclude each other."""
    arm = {field.name: model[field.name] for field in fields(WaveConfig) if field.name in model}
    try:
        WaveConfig(**arm)
    except ValueError as error:
        raise ValueError(f"model.{error}") from error


def _check_objective(merged: Merged) -> None:
    """Of the shipped objectives this one; what a sum or a user-supplied one needs is known when it is built."""
    objective = merged.at("model.objective")
    if merged.at("model").name.endswith(_ENCODER):
        _check_masked(objective.name, objective.values, merged.at("data").values.get("mask_share"))
    if objective.name == "modulators.RelationalObjective":
        check_objective("RelationalObjective", True, merged.at("data").values.get("near_pairs"))
        try:
            check_relational(*(float(objective.values[key]) for key in ("all_pairs", "nouns", "verbs", "task")))
        except ValueError as error:
            raise ValueError(f"model.objective: {error}") from error


def _check_masked(name: str, values: Mapping[str, Any], share: float | None) -> None:
    """Refuse an encoder's objective with a task where no token is hidden. Whether it has the head, its constructor
    knows."""
    relational = name == "modulators.RelationalObjective"
    if share is None and (name == "modulators.LemmaObjective" or (relational and float(values["task"]) > 0)):
        with_task = f" with task {values['task']:g}" if relational else ""
        raise refuse_masked(name.rpartition(".")[2] + with_task, NO_MASKS)


def _check_geometry(merged: Merged, subcommand: str, name: str, width: int | None) -> None:
    geometry, modulator = merged.at("model.geometry").values, merged.at("model.modulator").values
    if "n_geometric_dims" not in modulator:
        raise refuse_geometry(name)
    if geometry["kind"] == "none":
        if subcommand == "fit" and modulator.get("learnable_alpha") is False:
            raise ValueError("model.modulator: it has no trainable parameter; use validate instead of fit")
    elif width is not None:
        check_alignment(modulator["n_geometric_dims"], width)


def _check_cached_batches(merged: Merged) -> None:
    data = merged.at("data").name.rpartition(".")[2]
    if data != "WordNetDataModule":
        raise ValueError(f"model.cache: it keeps the batches of a WordNetDataModule, and data is a {data}")
    if merged.at("data").values["regroup"] is True:
        raise ValueError(
            f"model.cache is {merged.at('model').values['cache']}, and data.regroup is true; a cache is of batches that"
            " keep their members: leave data.regroup out, or set model.cache to null"
        )


def _check_data(merged: Merged, subcommand: str) -> None:
    data = merged.at("data").values
    if merged.at("data").name == _TEXT:
        check_windows(data["context"], data["batch_tokens"])
        check_text_vocabulary(data["tokenizer"], data["vocab_size"])
        check_corpus(data["corpus"])
    elif "vocab_size" in data:
        check_vocabulary(data["tokenizer"], data["vocab_size"])
    if "test_fraction" in data:
        check_fractions(float(data["val_fraction"]), float(data["test_fraction"]))
    if "prompts" in data:
        read_prompts(data["prompts"])
        if subcommand == "predict" and data["prompts"] == STANDARD_INPUT:
            piped_prompts()
    try:
        talk = merged.at("talk").values
        talk |= {"alpha_scales": [float(scale) for scale in talk["alpha_scales"]]}
        GenerationSettings(**talk | {key: float(talk[key]) for key in ("temperature", "top_p")})
    except ValueError as error:
        raise ValueError(f"talk: {error}") from error
    if data.get("nltk_data") is not None:
        from modulant.lexicon.archive import Archive

        try:
            Archive.find(data["nltk_data"])
        except (OSError, ValueError) as error:  # a LexiconError, or no name of a file
            raise ValueError(f"data.nltk_data: {error}") from error


def _check_similarity(files: str | list[str] | None, trainer: Mapping[str, Any]) -> None:
    """Read the files of word pairs that a run is to be measured on; the first process does that alone."""
    from modulant.corpus.word_pairs import gensim_word_pairs, read_word_pairs

    strategy = trainer.get("strategy")
    name = str(strategy.get("class_path") if isinstance(strategy, Mapping) else strategy).lower()
    if files is not None and ("sharded" in name or "fsdp" in name):
        raise ValueError(
            "similarity.files: a sharded backbone encodes in all processes at once; leave it null, and measure the run "
            "afterwards with python probe.py similarity RUN"
        )
    try:
        for file in gensim_word_pairs() if files == "gensim" else map(Path, files or ()):
            read_word_pairs(file)
    except ValueError as error:
        raise ValueError(f"similarity.files: {error}") from error


def _check_folders(command: Command) -> None:
    RunFolder(command)
    if command.resume is None or any((command.resume / "checkpoints").glob("*.ckpt")):
        return
    dirpath = next((config.dirpath for config in command.configs if isinstance(config, SavedConfig)), None)
    moved = f"; its configuration put them into {dirpath}: move them" if dirpath else ""
    raise ValueError(f"--resume: no checkpoint in {command.resume / 'checkpoints'}: nothing to resume from{moved}")
