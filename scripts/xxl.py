"""Writes a folder of random weights with the names and shapes of T5-v1.1-XXL, to try what reads weights of that size.

    python scripts/xxl.py /tmp/xxl --layers 1          # one block of each stack at full size: 1.4 GB
    python scripts/xxl.py /tmp/small --scale 0.125     # all 24 + 24 blocks, an eighth as wide: 0.4 GB
    python scripts/xxl.py /tmp/whole                   # 22 GB

Shards with an index, as on the hub. Entries are Gaussian, gains of norms are 1; nothing can be learned from such
weights. No more than a block of rows of one tensor is held.
"""

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

_DTYPES = {"bf16": (torch.bfloat16, "BF16"), "fp16": (torch.float16, "F16"), "fp32": (torch.float32, "F32")}
_ROWS = 4096  # of a tensor at once
_TIED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # names of one table


def configuration(scale: float = 1.0, layers: int | None = None) -> Any:
    """Of T5-v1.1-XXL, with another width or fewer blocks. Heads stay 64 wide.

    Raises:
        ValueError: the scale leaves no whole number of heads.
    """
    if not (scale * 64).is_integer() or scale <= 0:
        raise ValueError(f"--scale: {scale} must be a multiple of 1/64, such as 0.125")
    return T5Config(
        vocab_size=round(32128 * scale),
        d_model=round(4096 * scale),
        d_ff=round(10240 * scale),
        num_heads=round(64 * scale),
        d_kv=64,
        num_layers=layers or 24,
        num_decoder_layers=layers or 24,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        architectures=["T5ForConditionalGeneration"],
    )


def write(folder: Path, config: Any, dtype: str = "bf16", shard_bytes: int = 1 << 30, seed: int = 0) -> int:
    """Write config.json, the shards and their index; return the bytes of all tensors."""
    with torch.device("meta"):
        state = T5ForConditionalGeneration(config).state_dict()
    kind, word = _DTYPES[dtype]
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if name not in _TIED}
    sizes = {name: math.prod(shape) * kind.itemsize for name, shape in shapes.items()}
    shards: list[list[str]] = [[]]
    for name, size in sizes.items():
        if shards[-1] and sum(sizes[one] for one in shards[-1]) + size > shard_bytes:
            shards.append([])
        shards[-1].append(name)
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    files = {f"model-{i:05}-of-{len(shards):05}.safetensors": names for i, names in enumerate(shards, 1)}
    generator = torch.Generator().manual_seed(seed)
    for file, names in files.items():
        header, end = {}, 0
        for name in names:
            header[name] = {"dtype": word, "shape": shapes[name], "data_offsets": [end, end + sizes[name]]}
            end += sizes[name]
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for name in names:
                for rows in _rows(shapes[name], generator):
                    out.write(rows.to(kind).view(torch.uint8).numpy().data)
    index = {
        "metadata": {"total_size": sum(sizes.values())},
        "weight_map": {name: file for file, names in files.items() for name in names},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return sum(sizes.values())


def _rows(shape: tuple[int, ...], generator: torch.Generator) -> Iterator[Tensor]:
    if len(shape) == 1:
        yield torch.ones(shape)
        return
    for start in range(0, shape[0], _ROWS):
        rows = min(_ROWS, shape[0] - start)
        yield torch.randn(rows, shape[1], generator=generator) / math.sqrt(shape[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--scale", type=float, default=1.0, help="of all widths (default: %(default)s)")
    parser.add_argument("--layers", type=int, help="blocks of each stack (default: 24)")
    parser.add_argument("--dtype", choices=list(_DTYPES), default="bf16")
    parser.add_argument("--shard-mib", type=int, default=1024, help="most of a shard (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        config = configuration(args.scale, args.layers)
    except ValueError as error:
        parser.error(str(error))
    size = write(args.folder, config, args.dtype, args.shard_mib << 20, args.seed)
    print(f"{args.folder}: {size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
