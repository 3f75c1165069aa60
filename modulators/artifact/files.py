"""Read and validate the files of an artefact, which may come from an untrusted source, before building anything."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from modulant.assets import MINI_SHA256, resolve_backbone
from modulant.backbones.loading import translate_weight_errors
from modulant.backbones.sizes import SUPPORTED
from modulant.backbones.stream import ResidualStream
from modulant.backbones.tokenizers import first_line
from modulant.backbones.weights import WEIGHT_FILES, digest_of_weights
from modulant.storage import sha256_of
from modulators.base import Modulator
from modulators.registry import registered_class

WEIGHTS, CONFIG, CARD = "modulator.safetensors", "modulator_config.json", "README.md"
FILES = (WEIGHTS, CONFIG, CARD)

_ALL_WEIGHTS = "weights"  # key of the digest of all tensors; other keys are names of files

# Artefacts of 0.1.0 name one file of the backbone's folder and its SHA-256, the first of these that there was.
_BACKBONE_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "config.json")

# Types of the configuration's values. Keys of later versions may be missing or null.
_KINDS: dict[str, type] = {
    "modulator": str,
    "init_args": dict,
    "backbone": str,
    "sha256": str,
    "layers": list,
    "backbone_revision": str,
    "backbone_sha256": dict,
    "family": str,
}
_NULLABLE = ("backbone_revision", "backbone_sha256", "family")


@dataclass(frozen=True)
class StoredConfig:
    """A validated `modulator_config.json`: all required keys present, with values of the right types.

    Attributes:
        values: the whole mapping.
        stream: sizes of the backbone that the modulator was trained on.
    """

    values: Mapping[str, Any]
    stream: ResidualStream


def read_config(folder: Path) -> StoredConfig:
    """Read `modulator_config.json`. Keys added by later versions may be missing.

    Raises:
        ValueError: it cannot be read, or a key is missing or of a wrong type.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        for key, kind in _KINDS.items():
            value = config.get(key) if key in _NULLABLE else config[key]
            if not isinstance(value, kind) and not (value is None and key in _NULLABLE):
                raise TypeError(f"{key} is {value!r:.60}; it must be a {kind.__name__}")
        stream = ResidualStream(**config["stream"])
        for size, most in ((stream.d_model, 2**20), (stream.n_layers, 2**16), (stream.vocab_size, 2**28)):
            if size > most:
                raise ValueError(f"stream: a size is {size:,}; it must be at most {most:,}")
        return StoredConfig(config, stream)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"missing key {error}" if isinstance(error, KeyError) else first_line(error)
        raise ValueError(f"{folder}: not an artefact of a modulator ({CONFIG}: {reason})") from error


def read_modulator(folder: Path, stored: StoredConfig) -> Modulator:
    """Build the modulator from its configuration, with exactly the stored tensors.

    Raises:
        ValueError: its class is not registered, or its tensors are damaged or not those that the configuration
            describes.
    """
    kind, init_args = stored.values["modulator"], stored.values["init_args"]
    try:
        modulator_class = registered_class(kind)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    try:
        if sha256_of(folder / WEIGHTS) != stored.values["sha256"]:
            raise ValueError(f"its SHA-256 is not the one in {CONFIG}: it is damaged, or belongs to another modulator")
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise _tensor_error(folder, error) from error
    try:
        _check_sizes(kind, init_args, tensors, stored.stream)
        modulator = modulator_class(stored.stream, **init_args)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG}: init_args: {first_line(error)}") from error
    try:
        _check_tensors(tensors, modulator)
        modulator.load_state_dict(tensors, strict=True)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise _tensor_error(folder, error) from error
    return modulator


def backbone_digest(backbone: str) -> dict[str, str] | None:
    """Digest of the weights of a bundled or local backbone; None for a hub id (it has a revision), or without weights.

    Of ``mini`` it is the SHA-256 of its file, of a folder that of all its tensors, however they are stored.

    Raises:
        ValueError: the folder's weights cannot be read.
    """
    if backbone == "mini":
        return {"model.safetensors": MINI_SHA256["model.safetensors"]}
    folder = resolve_backbone(backbone)
    if not _has_files(Path(folder)):
        return None
    with translate_weight_errors(backbone):
        return {_ALL_WEIGHTS: digest_of_weights(folder)}


def check_backbone_weights(folder: Path, stored: StoredConfig) -> None:
    """Check that the backbone named by the artefact still has the weights that the modulator was trained on.

    An artefact of 0.1.0 has the SHA-256 of one file, which is compared with that file: of shards it was the index, so
    their contents are not checked.

    Raises:
        ValueError: its weights have another SHA-256, or cannot be read.
    """
    backbone = stored.values["backbone"]
    if _has_weights(folder, stored, Path(resolve_backbone(backbone)), backbone) is False:
        raise ValueError(
            f"{folder}: the backbone {backbone!r} no longer has the weights that the modulator was trained on "
            "(SHA-256 of its weights); name the right one with backbone=, or pass this one as backbone= to use it "
            "anyway"
        )


def check_weights_of_loaded(folder: Path, stored: StoredConfig, origin: str) -> None:
    """Check that the files a model was loaded from hold the weights that the modulator was trained on.

    Nothing is downloaded. The model in memory is not looked at. A warning says that it cannot be known: the model is
    from no files, its hub's files are not in the usual cache, or the artefact pins a hub's revision, and not this one.

    Args:
        folder: the artefact's.
        stored: its configuration.
        origin: the folder or hub id that the model was loaded from; empty: none.

    Raises:
        ValueError: its weights have another SHA-256, or cannot be read.
    """
    backbone, place = stored.values["backbone"], _files_of(origin)
    if place is not None and (origin, place.name) == (backbone, stored.values.get("backbone_revision")):
        return
    known = None if place is None or not _has_files(place) else _has_weights(folder, stored, place, origin)
    if known is None:
        warnings.warn(
            f"{folder}: it is not known whether {repr(origin) if origin else 'this model'} has the weights that the "
            f"modulator was trained on, which are those of {backbone!r}",
            stacklevel=3,
        )
    elif not known:
        raise ValueError(
            f"{folder}: {origin!r} has other weights than {backbone!r}, which the modulator was trained on (SHA-256); "
            "to use it anyway, attach(model, PretrainedModulator.from_pretrained(…).modulator)"
        )


def _has_weights(folder: Path, stored: StoredConfig, place: Path, name: str) -> bool | None:
    """Whether a folder holds the weights whose digest the artefact has; None if either is missing."""
    expected = stored.values.get("backbone_sha256")
    if not expected or not place.is_dir():
        return None
    for file, digest in expected.items():
        if file == _ALL_WEIGHTS:
            with translate_weight_errors(name):
                found = digest_of_weights(str(place))
        elif file in _BACKBONE_FILES:
            found = sha256_of(place / file) if (place / file).is_file() else ""
        else:
            raise ValueError(f"{folder / CONFIG}: backbone_sha256 names {file!r:.60}, which holds no weights")
        if found != digest:
            return False
    return True


def _files_of(origin: str) -> Path | None:
    """The folder itself; of a hub id its newest snapshot in the cache, named by the commit; None: there is neither."""
    if not origin or Path(origin).is_dir():
        return Path(origin) if origin else None
    try:
        found = try_to_load_from_cache(origin, "config.json")
    except ValueError:  # no hub id: a folder that is gone
        return None
    return Path(found).parent if isinstance(found, str) else None


def _has_files(place: Path) -> bool:
    return any((place / name).is_file() for name in WEIGHT_FILES)


def check_stream(folder: Path, stored: StoredConfig, stream: ResidualStream, backbone: str) -> None:
    """Check that a backbone has the sizes that the modulator was trained for.

    Raises:
        ValueError: it has other sizes.
    """
    if stream != stored.stream:
        raise ValueError(
            f"{folder}: trained for a backbone of {asdict(stored.stream)}; {backbone!r} has {asdict(stream)}"
        )


def check_family(folder: Path, stored: StoredConfig, model_type: str, backbone: str) -> None:
    """Check that a backbone is of the family that the modulator was trained on; a whole T5's are one.

    Raises:
        ValueError: it is of another.
    """
    family = stored.values.get("family")
    if model_type not in (SUPPORTED if family is None else (family,)):
        raise ValueError(f"{folder}: trained for a {family or 't5'}; {backbone!r} is a {model_type}")


def _tensor_error(folder: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())
    return ValueError(f"{folder / WEIGHTS}: not the tensors that {CONFIG} describes ({reason})")


def _check_sizes(kind: str, init_args: Any, tensors: Mapping[str, Tensor], stream: ResidualStream) -> None:
    """Check configured sizes, which may be any number, against the stored tensors before anything is allocated.

    Raises:
        ValueError: a size that no stored tensor has, or a geometry, which would be read from elsewhere.
        TypeError: a size that is not a number.
    """
    if init_args.get("geometry") is not None:
        raise ValueError("geometry must be null: the stored tensors contain it")
    largest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    constant = init_args.get("features") == "constant"  # a field without simplices
    of_field = ("expert_ks",) if constant else ("expert_ks", "expert_edim")
    names = ("n_geometric_dims",) if kind == "LerpModulator" else of_field
    for name in names:
        sizes = init_args.get(name, [])
        if any(size > largest for size in (sizes if isinstance(sizes, list) else [sizes])):
            raise ValueError(f"{name} is {str(sizes)[:40]}; the largest size of a stored tensor is {largest}")
    if kind == "LerpModulator" and "n_geometric_dims" in init_args:
        held = tuple(tensors.get("geometric_embed.weight", torch.empty(0, 0)).shape)
        if held != (needed := (stream.vocab_size, init_args["n_geometric_dims"])):
            raise ValueError(f"n_geometric_dims and vocab_size are {needed[::-1]}, geometric_embed.weight is {held}")
    if kind == "FieldModulator" and "expert_edim" in init_args:
        for k in init_args.get("expert_ks", []):
            name = f"gate_projs.k{k}.weight" if constant else f"experts.k{k}.to_deform.weight"
            needed = k * (k + 1) // 2 + 1 if constant else (k + 1) * init_args["expert_edim"]
            found = tensors.get(name, torch.empty(0)).shape[-1 if constant else 0]
            if found != needed:
                what = "columns" if constant else "rows"
                raise ValueError(f"expert {k} needs {needed} {what} of {name}, got {found}")


def _check_tensors(tensors: Mapping[str, Tensor], modulator: Modulator) -> None:
    """Check what `load_state_dict` does not: it casts other dtypes silently, and accepts NaN.

    Raises:
        ValueError: a tensor of another dtype, or one that is not finite.
    """
    expected = modulator.state_dict()
    for name, tensor in tensors.items():
        if name in expected and tensor.dtype != expected[name].dtype:
            raise ValueError(f"{name} is {tensor.dtype}; it must be {expected[name].dtype}")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} is not finite")
