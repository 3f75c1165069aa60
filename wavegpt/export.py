"""A trained model as a folder: safetensors weights and a JSON configuration; `load` reads it without running any code.

The frequency ranks, or what a control made of them, are among the weights. Tokenizer files are the caller's to copy.
``config.json`` says the same as the configuration to transformers (`wavegpt.auto`); `load` does not read it.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save as serialise

from modulant.storage import storing, write_whole
from wavegpt.config import AnnealConfig, WaveConfig
from wavegpt.model import WaveGPT

WEIGHTS, CONFIG = "model.safetensors", "wave_config.json"
MODEL_TYPE, ARCHITECTURE = "wavegpt", "WaveGPTForCausalLM"  # in transformers' config.json and generation_config.json
FORMAT = 1


def save(model: WaveGPT, folder: str | Path, end: int | None = None) -> Path:
    """Write a model; the table of a finished annealing (end 0) is left out, since nothing reads it.

    Args:
        end: id between documents, which transformers' ``generate`` begins and stops with.

    Raises:
        StorageError: the disk cannot store it.
    """
    folder = Path(folder)
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    config, tensors = model.config.to_dict(), dict(model.state_dict())
    anneal = model.config.embedding.anneal
    if anneal.steps and anneal.end == 0:
        config["embedding"]["anneal"] = AnnealConfig().__dict__
        del tensors["embedding.table.weight"]
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_whole(folder / WEIGHTS, serialise(whole, metadata={"format": "pt"}))
    write_whole(folder / CONFIG, json.dumps({"format": FORMAT, **config}, indent=2) + "\n")
    about = {"architectures": [ARCHITECTURE], "model_type": MODEL_TYPE, "wave": config}
    write_whole(folder / "config.json", json.dumps(about, indent=2) + "\n")
    if end is not None:
        ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end)
        write_whole(folder / "generation_config.json", json.dumps(ends, indent=2) + "\n")
    return folder


def load(folder: str | Path) -> WaveGPT:
    """Read a model that `save` wrote, on the CPU and in eval mode.

    Raises:
        ValueError: the folder holds no such model, or weights of another configuration.
    """
    folder = Path(folder)
    try:
        about: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        data = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read ({error.strerror}); name the folder of a model") from error
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG} is no JSON ({error})") from error
    if not isinstance(about, dict) or about.pop("format", None) != FORMAT:
        raise ValueError(f"{folder / CONFIG} is no configuration of format {FORMAT}; save the model again")
    try:
        config = WaveConfig(**about)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    try:
        tensors = parse(data)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read ({error})") from error
    with torch.random.fork_rng(devices=[]):  # the initial weights are replaced
        placeholder = torch.arange(config.vocab_size or 1) if config.embedding.needs_ranks else None
        model = WaveGPT(config, placeholder)
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if len(dtypes) == 1:
        model = model.to(dtypes.pop())
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ValueError(f"{folder / WEIGHTS} does not fit {CONFIG}: {reason}") from error
    return model.eval()
