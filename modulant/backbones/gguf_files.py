"""GGUF files, as llama.cpp reads them: tensors dequantised on demand, under the names that transformers gives them.

Metadata are parsed here, past the vocabulary that they hold, so that a file of any size costs no memory; what packed
numbers mean is known by the package gguf (the extra ``weights``).
"""

import re
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

# Architecture → model type, of those whose blocks are named as below and of which all sizes are in the metadata.
_MODEL_TYPES = {"gemma3": "gemma3_text"} | {
    name: name for name in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi3")
}
_SIZES = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "context_length": "max_position_embeddings",
}
_BESIDE = {"token_embd": "model.embed_tokens", "output": "lm_head", "output_norm": "model.norm"}
_IN_A_BLOCK = {
    **{f"attn_{kind}": f"self_attn.{kind}_proj" for kind in ("q", "k", "v", "qkv")},
    **{f"cross_attn_{kind}": f"encoder_attn.{kind}_proj" for kind in "qkvo"},
    "attn_o": "self_attn.o_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_DIFFERENT = {
    "phi3": {"ffn_up": "mlp.gate_up_proj"},
    **{
        name: {
            "post_attention_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        }
        for name in ("gemma2", "gemma3")
    },
}
_STACKS = {"": "model", "enc.": "encoder", "dec.": "decoder", "v.": "vision"}
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # type → struct
_STRING, _ARRAY = 8, 9
_PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
_PLAIN |= {"I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64}
_ROWS_AT_ONCE = 1024  # that are dequantised: gguf holds them twice


@dataclass(frozen=True)
class Packed:
    """One tensor of a file.

    Attributes:
        kind: how its numbers are stored: ``F32``, ``Q4_1``, ….
        shape: of its numbers, (out, in) of a matrix.
        stored: as they are stored; of a quantised tensor the bytes of each row.
        heads: into which its rows are divided, each with its pairs for rotation side by side; 0: as transformers has
            them, in two halves.
        offset: added to its numbers by whoever wrote the file, as llama.cpp does to Gemma's gains.
    """

    kind: str
    shape: tuple[int, ...]
    stored: Tensor
    heads: int = 0
    offset: float = 0.0

    def rows(self, start: int | None, stop: int | None) -> Tensor:
        """These rows, or all: plain numbers as they are stored, others in fp32."""
        stored = self.stored
        if self.heads:
            stored = stored.unflatten(0, (self.heads, -1, 2)).transpose(1, 2).flatten(0, 2)
        stored = stored[start:stop]
        if self.kind not in _PLAIN:
            gguf = _library()
            kind = gguf.GGMLQuantizationType[self.kind]
            found = torch.empty(len(stored), *self.shape[1:])
            for begin in range(0, len(stored), _ROWS_AT_ONCE):
                some = stored[begin : begin + _ROWS_AT_ONCE].numpy()
                found[begin : begin + len(some)] = torch.from_numpy(gguf.dequantize(some, kind))
            stored = found
        return stored - self.offset if self.offset else stored


def gguf_file(name: str) -> Path | None:
    """The file that a name means, or the first of its parts: itself, or the only one of a folder; None: there is none.

    Raises:
        ValueError: there is no such file, or a folder holds several.
    """
    place = Path(name).expanduser()
    if place.is_dir():
        models = sorted({_parts(path)[0] for path in place.glob("*.gguf")})
        if len(models) > 1:
            raise ValueError(f"{name!r} holds {len(models)} GGUF files; name one of them: {models[0].name}, …")
        if not models:
            return None
        place = models[0]
    elif place.suffix != ".gguf":
        return None
    place = _parts(place)[0]
    if not place.is_file():
        raise ValueError(f"{place} is not there")
    return place


def _parts(path: Path) -> list[Path]:
    """All parts of a file, of which the first has the metadata."""
    if (found := _PART.search(path.name)) is None:
        return [path]
    stem = path.name.removesuffix(found[0])
    return [path.with_name(f"{stem}-{i + 1:05}-of-{found[2]}.gguf") for i in range(int(found[2]))]


def config_of(file: Path) -> Any:
    """What the metadata of a file say about the model: a configuration of transformers.

    Of a model whose layout is not known here it has only a ``model_type``, which no family has.

    Raises:
        ValueError: the file cannot be read, or gguf is not installed.
    """
    metadata, tensors = _header(file)
    architecture = str(metadata.get("general.architecture"))
    about = {
        key.removeprefix(f"{architecture}."): value
        for key, value in metadata.items()
        if key.startswith(f"{architecture}.")
    }
    sizes = {ours: about[key] for key, ours in _SIZES.items() if key in about}
    plain = len(sizes) >= len(_SIZES) - 1 and all(isinstance(value, int) for value in sizes.values())
    if architecture not in _MODEL_TYPES or not plain or about.get("expert_count") or "token_embd.weight" not in tensors:
        return SimpleNamespace(model_type=f"{architecture} (GGUF)")
    heads = sizes["num_attention_heads"]
    return AutoConfig.for_model(
        _MODEL_TYPES[architecture],
        **{"num_key_value_heads": heads} | sizes,
        head_dim=about.get("attention.key_length", sizes["hidden_size"] // heads),
        vocab_size=tensors["token_embd.weight"][1][0],
        pad_token_id=None,
    )


def gguf_tensors(file: Path, missing: list[str] | None = None) -> Iterator[tuple[str, Any]]:
    """Name as of transformers → its rows, of a file and of the other parts that it is divided into.

    Args:
        file: the first part, as of `gguf_file`.
        missing: gets the names of parts that are not there; None: they are an error.

    Raises:
        ValueError: a file cannot be read, or gguf is not installed.
        OSError: a part is missing.
    """
    parts = _parts(file)
    absent = [path.name for path in parts if not path.is_file()]
    if absent and missing is None:
        raise OSError(f"{absent[0]} is not there")
    (missing if missing is not None else []).extend(absent)
    metadata = _header(parts[0])[0]  # the other parts have none
    for path in parts:
        if path.name not in absent:
            yield from _tensors(path, metadata)


def _tensors(path: Path, metadata: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    tensors, content = _header(path)[1], _mapped(path)
    architecture = str(metadata.get("general.architecture"))
    n_heads = metadata.get(f"{architecture}.attention.head_count")
    heads = {"q": n_heads, "k": metadata.get(f"{architecture}.attention.head_count_kv", n_heads)}
    gemma = architecture in ("gemma", "gemma2", "gemma3")
    for name, (kind, shape, begin, size) in sorted(tensors.items()):
        stored = torch.empty(0, dtype=_PLAIN.get(kind, torch.uint8))
        if size:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The given buffer is not writable")
                stored = torch.frombuffer(content, dtype=stored.dtype, count=size // stored.itemsize, offset=begin)
        rotated = re.fullmatch(r"blk\.\d+\.attn_([qk])\.(weight|bias)", name) if architecture == "llama" else None
        packed = Packed(
            kind,
            shape,
            stored.view(shape) if kind in _PLAIN else stored.view(*shape[:-1], -1),
            heads=(heads[rotated[1]] or 0) if rotated is not None else 0,
            offset=1.0 if gemma and name.endswith("norm.weight") else 0.0,
        )
        yield _named(name, architecture), partial(_rows_in, packed)


def _rows_in(packed: Packed, start: int | None, stop: int | None) -> Tensor:
    return packed.rows(start, stop)


def _named(name: str, architecture: str) -> str:
    """As transformers names it; as it is where that is not known.

    >>> _named("blk.3.attn_q.weight", "llama"), _named("rope_freqs.weight", "llama")
    ('model.layers.3.self_attn.q_proj.weight', 'rope_freqs.weight')
    """
    path, _, last = name.rpartition(".")
    if path in _BESIDE:
        return f"{_BESIDE[path]}.{last}"
    found = re.fullmatch(r"(enc\.|dec\.|v\.|)blk\.(\d+)\.(\w+)", path)
    own = (_IN_A_BLOCK | _DIFFERENT.get(architecture, {})).get(found[3]) if found is not None else None
    return name if found is None or own is None else f"{_STACKS[found[1]]}.layers.{found[2]}.{own}.{last}"


def _mapped(path: Path) -> mmap:
    with path.open("rb") as file:
        return mmap(file.fileno(), 0, access=ACCESS_READ)


Place = tuple[str, tuple[int, ...], int, int]  # type, shape, first byte, number of bytes


def _header(path: Path) -> tuple[dict[str, Any], dict[str, Place]]:
    """Metadata without arrays, and where each tensor is."""
    types = {int(kind): (kind.name, *size) for kind, size in _library().GGML_QUANT_SIZES.items()}
    if not path.stat().st_size:
        raise ValueError(f"{path.name} is no GGUF file")
    content = _mapped(path)
    at = 0

    def read(form: str) -> Any:
        nonlocal at
        (value,) = struct.unpack_from(f"<{form}", content, at)
        at += struct.calcsize(f"<{form}")
        return value

    def text() -> str:
        nonlocal at
        length = read("Q")
        at += length
        return content[at - length : at].decode("utf-8", "replace")

    def value(kind: int) -> Any:
        nonlocal at
        if kind == _STRING:
            return text()
        if kind != _ARRAY:
            return read(_SCALARS[kind])
        inner, length = read("I"), read("Q")
        if inner in _SCALARS:
            at += length * struct.calcsize(f"<{_SCALARS[inner]}")
        else:
            for _ in range(length):
                if inner == _STRING:
                    at += struct.unpack_from("<Q", content, at)[0] + 8
                else:
                    value(inner)
        return None

    try:
        magic, version, n_tensors, n_values = read("4s"), read("I"), read("Q"), read("Q")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"{path.name} is no GGUF file of version 2 or 3")
        metadata: dict[str, Any] = {}
        for _ in range(n_values):
            key = text()
            metadata[key] = value(read("I"))
        found = []
        for _ in range(n_tensors):
            name, n_dims = text(), read("I")
            shape = tuple(reversed([read("Q") for _ in range(n_dims)]))
            found.append((name, shape, read("I"), read("Q")))
        align = int(metadata.get("general.alignment", 32))
        first = -(-at // align) * align
        places: dict[str, Place] = {}
        for name, shape, number, offset in found:
            if number not in types:
                raise ValueError(f"{path.name} holds {name} in the type {number}, which gguf does not know")
            kind, block, size = types[number]
            n_bytes = torch.Size(shape).numel() // block * size
            if first + offset + n_bytes > len(content):
                raise ValueError(f"{path.name} ends within {name}")
            places[name] = (kind, shape, first + offset, n_bytes)
    except (struct.error, KeyError, OverflowError) as error:
        raise ValueError(f"{path.name} is no whole GGUF file") from error
    return metadata, places


def _library() -> Any:
    """The package gguf.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise ValueError("GGUF files need gguf, which is not installed; pip install 'modulant[weights]'") from error
    return gguf
