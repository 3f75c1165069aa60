"""A trained modulator as a folder: weights as safetensors, its configuration, and a card for people."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from modulators.backbone import first_line, load_backbone, load_config, load_tokenizer, stream_of
from modulators.base import Modulator, ResidualStream
from modulators.hooks import attach
from modulators.known import known, named
from storage import storing, write_whole

WEIGHTS, CONFIG, CARD = "modulator.safetensors", "modulator_config.json", "README.md"

_CARD = """\
# {kind} for {backbone}

A geometric modulator of the residual stream of a frozen T5, trained by
modulant: definition → lemma over WordNet 3.0. {parameters:,} parameters, attached to encoder layers {layers}.

```python
from modulators import load_modulated

model, tokenizer = load_modulated({folder!r})
ids = tokenizer("summarize: a domesticated carnivorous mammal", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids, max_new_tokens=8)[0], skip_special_tokens=True))
with model.modulation.disabled():  # the backbone itself, bit for bit
    ...
```

| figure at the end of training | |
|---|---|
{figures}
{geometry}
One run, one seed: a lift without its controls and interval is no result.
"""


def save_modulator(
    modulator: Modulator,
    folder: str | Path,
    backbone: str,
    layers: list[int],
    figures: dict[str, float],
    geometry: Mapping[str, Any] | None = None,
) -> None:
    """Write a modulator so that `load_modulated` finds it.

    Args:
        modulator: of one of this package's classes.
        folder: made if it is not there.
        backbone: what the modulator was trained on: ``mini``, a folder or a hub id.
        layers: the encoder blocks that it is attached to.
        figures: what the card says of it.
        geometry: where its geometric embeddings come from, if it has any.

    Raises:
        ValueError: a modulator of a class that `load_modulated` does not know.
    """
    kind = type(modulator).__name__
    if kind not in known():
        raise ValueError(f"a {kind} cannot be saved as an artefact; known are {', '.join(known())}")
    folder = Path(folder)
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in modulator.state_dict().items()}
    weights = save(tensors, metadata={"format": "pt"})
    write_whole(folder / WEIGHTS, weights)
    config = {
        "modulator": kind,
        "init_args": modulator.init_args,
        "backbone": backbone,
        "layers": layers,
        "stream": asdict(modulator.stream),
        "geometry": dict(geometry) if geometry else None,
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    write_whole(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in figures.items()) or "| none | |"
    card = _CARD.format(
        kind=kind,
        backbone=backbone,
        parameters=sum(p.numel() for p in modulator.parameters()),
        layers=layers,
        folder=folder.name,
        figures=rows,
        geometry=_told(geometry),
    )
    write_whole(folder / CARD, card)


def _told(geometry: Mapping[str, Any] | None) -> str:
    """What the card says of a geometry."""
    if not geometry:
        return ""
    names = {
        "wordnet": "WordNet",
        "n_anchors": "anchors",
        "anchors_held_out": "of them held out",
        "reconstruction_correlation": "correlation of the points' cosines with Wu–Palmer similarity",
        "alignment_cosine": "mean cosine of the aligned points with the encoder's",
    }
    told = [f"{name} {_short(geometry[key])}" for key, name in names.items() if key in geometry]
    return f"\nGeometry before training: {geometry['kind']}" + "".join(f"; {item}" for item in told) + ".\n"


def _short(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def load_modulated(folder_or_hub_id: str | Path, backbone: str | None = None) -> tuple[Any, Any]:
    """A frozen T5 with the modulator of an artefact attached, and its tokenizer.

    Args:
        folder_or_hub_id: what `save_modulator` wrote, or a hub repository that holds those files.
        backbone: another place of the same backbone than the artefact names.

    Returns:
        (model, tokenizer), in eval mode. The model has two attributes more: ``modulator``, the module, which is not
        moved along with the model to another device, and ``modulation``, its handle.

    Raises:
        ValueError: no artefact there, of a class that is not known, for a backbone of other sizes, or whose tensors
            are damaged or not what its configuration says.
    """
    folder = _folder(folder_or_hub_id)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind, init_args, layers, sha256 = (config[key] for key in ("modulator", "init_args", "layers", "sha256"))
        backbone = str(backbone or config["backbone"])
        trained_on = ResidualStream(**config["stream"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else first_line(error)
        raise ValueError(f"{folder}: no artefact of a modulator ({CONFIG}: {reason})") from error
    try:
        modulator_class = named(kind)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    stream = stream_of(load_config(backbone))
    if stream != trained_on:
        raise ValueError(f"{folder}: trained for a backbone of {asdict(trained_on)}; {backbone!r} has {asdict(stream)}")
    try:
        if _sha256(folder / WEIGHTS) != sha256:
            raise ValueError(f"its SHA-256 is not the one in {CONFIG}: it is damaged, or of another modulator")
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder / WEIGHTS}: not the tensors that {CONFIG} describes ({reason})") from error
    try:
        _check_sizes(kind, init_args, tensors)
        modulator = modulator_class(stream, **init_args)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG}: init_args: {first_line(error)}") from error
    try:
        _check_tensors(tensors, modulator)
        modulator.load_state_dict(tensors, strict=True)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder / WEIGHTS}: not the tensors that {CONFIG} describes ({reason})") from error
    model = load_backbone(backbone)
    modulator.requires_grad_(False).eval()
    handle = attach(model, modulator, layers)
    # Beside the T5, not in it: its state dict stays the base's.
    object.__setattr__(model, "modulator", modulator)
    object.__setattr__(model, "modulation", handle)
    return model, load_tokenizer(backbone)


def _check_sizes(kind: str, init_args: Any, tensors: Mapping[str, Tensor]) -> None:
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
        held = tensors.get("geometric_embed.weight", torch.empty(0)).shape[-1]
        if held != init_args["n_geometric_dims"]:
            raise ValueError(f"n_geometric_dims is {init_args['n_geometric_dims']}, geometric_embed.weight has {held}")
    if kind == "FieldModulator" and "expert_edim" in init_args:
        for k in init_args.get("expert_ks", []):
            held = tensors.get(f"experts.k{k}.to_deform.weight", torch.empty(0)).shape[0]
            if held != (needed := (k + 1) * init_args["expert_edim"]):
                raise ValueError(f"expert {k} needs {needed} rows of experts.k{k}.to_deform.weight, got {held}")


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


def _folder(folder_or_hub_id: str | Path) -> Path:
    folder = Path(folder_or_hub_id).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(folder_or_hub_id), allow_patterns=[WEIGHTS, CONFIG, CARD]))
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise ValueError(f"{folder_or_hub_id}: neither a folder nor a hub repository at hand ({reason})") from error


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
