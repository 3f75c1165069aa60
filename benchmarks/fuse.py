"""A fused LERP against the plain one: the modulator alone over all layers, and a whole pass of the encoder.

Fusing computes the targets T = g Wᵀ of the whole vocabulary once: a pass looks a row of T up where the plain way looks
up a row of g and multiplies it with W. What that costs is the table, V · D · 4 bytes. An encoder pass has much else to
do, so its ratio says what a user gains. Either is done once a pass, for all layers. Parity: the largest difference of
the modulated stream, and of the encoder's output. Repeats are interleaved, so a busy moment meets all alike.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from transformers import T5Config, T5EncoderModel

from benchmarks.harness import command
from modulators import LerpModulator, attach, load_t5, stream_of

BATCH, TOKENS = 32, 16  # as many tokens as definitions have on average
TOLERANCE = 1e-5  # fp32; of values near 1, for the modulator, and after a layer norm, for the encoder


def mini() -> Any:
    return load_t5("mini")[0]


def t5_small() -> Any:
    """T5-small's sizes, random weights: what is timed does not depend on them."""
    sizes = {"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}
    return T5EncoderModel(T5Config(**sizes)).requires_grad_(False).eval()


@torch.no_grad()
def run(quick: bool = False) -> list[dict[str, Any]]:
    """Rows of the table; `ratio` is plain / ours."""
    rows: list[dict[str, Any]] = []
    for name, build in (("mini", mini),) if quick else (("mini", mini), ("T5-small's sizes", t5_small)):
        torch.manual_seed(0)
        model = build()
        stream = stream_of(model.config)
        modulator = LerpModulator(stream, initial_alpha=0.1)
        modulator.proj.weight.mul_(30)  # targets of the stream's size
        fused = modulator.fuse()
        ids = torch.randint(2, stream.vocab_size, (BATCH, TOKENS))
        residual = torch.randn(BATCH, TOKENS, stream.d_model)
        handle = attach(model, modulator)

        def alone(which: Any, residual: Tensor = residual, ids: Tensor = ids, n: int = stream.n_layers) -> Tensor:
            prepared = which.prepare(ids)
            for layer in range(n):
                residual = which(residual, layer, ids, prepared=prepared)
            return residual

        def encode(which: Any, model: Any = model, handle: Any = handle, ids: Tensor = ids) -> Tensor:
            handle.modulator = which
            return model.encoder(input_ids=ids).last_hidden_state

        memory = f"table {stream.vocab_size * stream.d_model * 4 / 1e6:.1f} MB"
        for what, way in (("the modulator, all layers", alone), ("a pass of the encoder", encode)):
            error = float((way(fused) - way(modulator)).abs().max())
            ours, plain = interleaved(way, fused, modulator, 20 if quick else 100)
            ratios = sorted(p / o for p, o in zip(plain, ours, strict=True))
            low, high = ratios[len(ratios) // 20], ratios[-len(ratios) // 20]
            rows.append(
                {
                    "what": f"{what}, {name}, {BATCH} × {TOKENS} tokens; {memory}",
                    "ours": f"{1e3 * median(ours):.2f} ms",
                    "plain": f"{1e3 * median(plain):.2f} ms",
                    "ratio": f"{median(ratios):.2f} [{low:.2f}, {high:.2f}]",
                    "asked": "",
                    "parity": f"{'equal' if error <= TOLERANCE else 'differ'}: to {error:.0e}",
                }
            )
    return rows


def interleaved(way: Callable[[Any], Tensor], fused: Any, plain: Any, repeats: int) -> tuple[list[float], list[float]]:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for which, seconds in zip((fused, plain), times, strict=True):
            start = perf_counter()
            way(which)
            seconds.append(perf_counter() - start)
    return times


if __name__ == "__main__":
    sys.exit(command(run, __doc__))
