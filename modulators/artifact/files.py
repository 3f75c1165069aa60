"""What an artefact's files must be before anything is built of them: a folder may come from a stranger."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from modulant.assets import MINI_SHA256, resolve_backbone
from modulant.backbones.stream import ResidualStream
from modulant.backbones.tokenizers import first_line
from modulators.base import Modulator
from modulators.registry import named

WEIGHTS, CONFIG, CARD = "modulator.safetensors", "modulator_config.json", "README.md"
FILES = (WEIGHTS, CONFIG, CARD)

# The file that says which weights a backbone in a folder has; the first one that is there.
_BACKBONE_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "config.json")


@dataclass(frozen=True)
class Stored:
    """A configuration whose keys are there and of the right kind.

    Attributes:
        values: the whole of it.
        stream: of the backbone that the modulator was trained on.
    """

    values: Mapping[str, Any]
    stream: ResidualStream


def read_config(folder: Path) -> Stored:
    """`modulator_config.json`. Keys that younger versions have added may be missing.

    Raises:
        ValueError: it cannot be read, or a key is missing or of another kind.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        for key, kind in (("modulator", str), ("init_args", object), ("backbone", str), ("sha256", str)):
            if not isinstance(config[key], kind):
                raise TypeError(f"{key} is {config[key]!r:.60}")
        for key, kind in (("backbone_revision", str), ("backbone_sha256", dict)):
            if not isinstance(config.get(key), kind | None):
                raise TypeError(f"{key} is {config[key]!r:.60}")
        if not isinstance(config["layers"], list):
            raise TypeError(f"layers is {config['layers']!r:.60}")
        stream = ResidualStream(**config["stream"])
        for size, most in ((stream.d_model, 2**20), (stream.n_layers, 2**16), (stream.vocab_size, 2**28)):
            if size > most:
                raise ValueError(f"stream: a size of {size:,}")
        return Stored(config, stream)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else first_line(error)
        raise ValueError(f"{folder}: no artefact of a modulator ({CONFIG}: {reason})") from error


def read_modulator(folder: Path, stored: Stored) -> Modulator:
    """The modulator, built by its configuration, with exactly the stored tensors.

    Raises:
        ValueError: of a class that is not known, or with tensors that are damaged or not what the configuration says.
    """
    kind, init_args = stored.values["modulator"], stored.values["init_args"]
    try:
        modulator_class = named(kind)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    try:
        if sha256(folder / WEIGHTS) != stored.values["sha256"]:
            raise ValueError(f"its SHA-256 is not the one in {CONFIG}: it is damaged, or of another modulator")
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise _not_these_tensors(folder, error) from error
    try:
        _check_sizes(kind, init_args, tensors, stored.stream)
        modulator = modulator_class(stored.stream, **init_args)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG}: init_args: {first_line(error)}") from error
    try:
        _check_tensors(tensors, modulator)
        modulator.load_state_dict(tensors, strict=True)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise _not_these_tensors(folder, error) from error
    return modulator


def backbone_digest(backbone: str) -> dict[str, str] | None:
    """File → SHA-256 that tells a bundled or local backbone's weights apart; None for one of the hub, which has a
    revision. Takes about a second for each gigabyte of weights."""
    if backbone == "mini":
        return {"model.safetensors": MINI_SHA256["model.safetensors"]}
    folder = Path(resolve_backbone(backbone))
    found = next((folder / name for name in _BACKBONE_FILES if (folder / name).is_file()), None)
    return None if found is None else {found.name: sha256(found)}


def check_backbone_weights(folder: Path, stored: Stored) -> None:
    """Raises:
    ValueError: the backbone that the artefact names has other weights than when the modulator was trained.
    """
    backbone, asked = stored.values["backbone"], stored.values.get("backbone_sha256")
    if asked and (found := backbone_digest(backbone)) and found != asked:
        raise ValueError(
            f"{folder}: the backbone {backbone!r} no longer has the weights that the modulator was trained on (SHA-256 "
            "of its weights); name the right one with backbone=, or this one to have it all the same"
        )


def check_stream(folder: Path, stored: Stored, stream: ResidualStream, backbone: str) -> None:
    """Raises:
    ValueError: the backbone has other sizes than the one that the modulator was trained on.
    """
    if stream != stored.stream:
        raise ValueError(
            f"{folder}: trained for a backbone of {asdict(stored.stream)}; {backbone!r} has {asdict(stream)}"
        )


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _not_these_tensors(folder: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())
    return ValueError(f"{folder / WEIGHTS}: not the tensors that {CONFIG} describes ({reason})")


def _check_sizes(kind: str, init_args: Any, tensors: Mapping[str, Tensor], stream: ResidualStream) -> None:
    """Sizes are taken from the tensors at hand before anything is allocated: a configuration may claim any number.

    Raises:
        ValueError: a size that no tensor of this artefact has, or a file to be read.
        TypeError: a size that is no number.
    """
    if not isinstance(init_args, dict):
        raise TypeError(f"must be a mapping, got {type(init_args).__name__}")
    if init_args.get("geometry") is not None:
        raise ValueError("geometry must be null: the tensors hold it")
    largest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    names = ("n_geometric_dims",) if kind == "LerpModulator" else ("expert_ks", "expert_edim")
    for name in names:
        sizes = init_args.get(name, [])
        if any(size > largest for size in (sizes if isinstance(sizes, list) else [sizes])):
            raise ValueError(f"{name} is {str(sizes)[:40]}; the largest size of a tensor here is {largest}")
    if kind == "LerpModulator" and "n_geometric_dims" in init_args:
        held = tuple(tensors.get("geometric_embed.weight", torch.empty(0, 0)).shape)
        if held != (needed := (stream.vocab_size, init_args["n_geometric_dims"])):
            raise ValueError(f"n_geometric_dims and vocab_size are {needed[::-1]}, geometric_embed.weight is {held}")
    if kind == "FieldModulator" and "expert_edim" in init_args:
        for k in init_args.get("expert_ks", []):
            found = tensors.get(f"experts.k{k}.to_deform.weight", torch.empty(0)).shape[0]
            if found != (rows := (k + 1) * init_args["expert_edim"]):
                raise ValueError(f"expert {k} needs {rows} rows of experts.k{k}.to_deform.weight, got {found}")


def _check_tensors(tensors: Mapping[str, Tensor], modulator: Modulator) -> None:
    """What `load_state_dict` lets pass: it casts another dtype without a word, and takes NaN.

    Raises:
        ValueError: a tensor of another dtype, or one that is not finite.
    """
    expected = modulator.state_dict()
    for name, tensor in tensors.items():
        if name in expected and tensor.dtype != expected[name].dtype:
            raise ValueError(f"{name} is {tensor.dtype}, should be {expected[name].dtype}")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} is not finite")
