"""The stored weights of a backbone, whatever its files are: tensors by name, and one digest of all of them."""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import cast

import torch
from safetensors import safe_open
from torch import Tensor
from transformers.utils.hub import cached_file

from modulant.backbones.gguf_files import Packed, gguf_file, gguf_tensors

# (start, stop) → these rows of a stored tensor; (None, None): all of it
Rows = Callable[[int | None, int | None], Tensor]

# In the order in which transformers looks for them.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Names of the input embeddings; madlad400's files have the last one alone.
EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}  # of safetensors
_TIED = (*EMBEDDINGS[1:], "lm_head.weight")  # to the first


def stored_tensors(name: str, missing: list[str] | None = None) -> Iterator[tuple[str, Rows]]:
    """Tensors of a folder or hub id, or of a GGUF file, by name; rows are read on demand.

    Args:
        name: folder, hub id or GGUF file; of a folder that holds one, other weights come first.
        missing: gets the names of shards that an index names and that are not there; None: they are an error.

    Raises:
        OSError: there are no weights in a supported format, or a shard is missing.
        ValueError: a GGUF file cannot be read.
    """
    if (packed := packed_file(name)) is not None:
        yield from gguf_tensors(packed, missing)
        return
    found = next((path for file in WEIGHT_FILES if (path := _file(name, file)) is not None), None)
    if found is None:
        raise OSError(f"none of {', '.join(WEIGHT_FILES)} is there")
    parts = {found}
    if found.suffix == ".json":
        index = json.loads(found.read_text(encoding="utf-8"))["weight_map"]
        shards = {part: _file(name, part) for part in set(index.values())}
        parts = {path for path in shards.values() if path is not None}
        if absent := sorted(part for part, path in shards.items() if path is None):
            if missing is None:
                raise OSError(f"{absent[0]} is not there, which {found.name} names")
            missing += absent
    for path in sorted(parts):
        yield from (_safetensors(path) if path.suffix == ".safetensors" else _pickled(path))


def packed_file(name: str) -> Path | None:
    """The GGUF file whose weights a name means; None: other files.

    Raises:
        ValueError: there is no such file, or a folder holds several.
    """
    folder = Path(name)
    if folder.is_dir() and any((folder / file).is_file() for file in WEIGHT_FILES):
        return None
    return gguf_file(name)


def shape_of(rows: Rows) -> tuple[int, ...]:
    """Shape of a tensor of `stored_tensors`, of which nothing is read."""
    (whole,) = cast("partial[Tensor]", rows).args
    return tuple(whole.shape)


def type_of(rows: Rows) -> str:
    """How the numbers of a tensor of `stored_tensors` are stored: ``float16``, and in a GGUF file ``Q4_1``."""
    (whole,) = cast("partial[Tensor]", rows).args
    return whole.kind if isinstance(whole, Packed) else str(whole.dtype).removeprefix("torch.")


def digest_of_weights(name: str) -> str:
    """SHA-256 of all tensors: their names, dtypes, shapes and bits, in hex. Takes about a second per gigabyte.

    One file, shards and a pickle of the same tensors have the same digest. So has a file that stores the shared
    embeddings once more under their other names.

    Raises:
        OSError: there are no weights in a supported format.
    """
    digests = {tensor: _digest(rows(None, None)) for tensor, rows in stored_tensors(name)}
    shared = digests.get("shared.weight")
    own = {tensor: digest for tensor, digest in digests.items() if tensor not in _TIED or digest != shared}
    return hashlib.sha256(json.dumps(sorted(own.items())).encode()).hexdigest()


def _digest(tensor: Tensor) -> str:
    head = f"{tensor.dtype} {tuple(tensor.shape)}\n".encode()
    content = hashlib.sha256(head)
    content.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()


def _file(name: str, file: str) -> Path | None:
    path = cached_file(
        name, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    return None if path is None else Path(path)


def _safetensors(path: Path) -> Iterator[tuple[str, Rows]]:
    """Tensors of a file that is mapped read-only: nothing may be written into them.

    `safe_open` maps the whole file as the process's own data, which a limit on that would have to allow for.
    """
    with safe_open(path, framework="np"):  # which checks the header
        pass
    with path.open("rb") as file:
        content = mmap(file.fileno(), 0, access=ACCESS_READ)
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    header.pop("__metadata__", None)
    for name in sorted(header):
        about = header[name]
        first, last = about["data_offsets"]
        if about["dtype"] not in _DTYPES:
            raise ValueError(f"{path.name} holds {name} as {about['dtype']}, which is not supported")
        dtype = _DTYPES[about["dtype"]]
        whole = torch.empty(0, dtype=dtype)
        if first < last:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The given buffer is not writable")
                whole = torch.frombuffer(
                    content, dtype=dtype, count=(last - first) // dtype.itemsize, offset=begin + first
                )
        yield name, partial(_rows_in, whole.view(about["shape"]))


def _pickled(path: Path) -> Iterator[tuple[str, Rows]]:
    for name, tensor in torch.load(path, map_location="cpu", mmap=True, weights_only=True).items():
        yield name, partial(_rows_in, tensor)


def _rows_in(whole: Tensor, start: int | None, stop: int | None) -> Tensor:
    return whole if start is None else whole[start:stop]
