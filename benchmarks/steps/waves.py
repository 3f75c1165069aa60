"""Wave language models: interference attention against its naive form and RoPE, linear time, decoding, a training step.

Times are CPU seconds of the process, so that other processes of the machine matter less.
"""

import math
from collections.abc import Callable
from functools import partial
from time import process_time
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness import Row, interleaved, milliseconds, ratio
from probes.memory.model import kept_of
from wavegpt import (
    AttentionConfig,
    Cache,
    EmbeddingConfig,
    WaveConfig,
    WaveGPT,
    build_optimizer,
    interference_attention,
    preset,
)
from wavegpt.attention.phases import ladder, rotate, turned
from wavegpt.attention.places import places_of

ABOUT = """\
Attention of the wave models beside RoPE and beside the plain forms.

- **Setup.** 4 heads, forward and backward pass, random weights; a training step includes the optimizer.
- ***Functions*** start from amplitudes and phases, or from queries and keys that RoPE turns. ***Layers*** have their \
projections too, and are what a model runs.
- **Ratio.** Against the naive form, linear attention and forwarding anew: how often ours is faster. Against RoPE: \
ours over plain.
- ***Slope*** is of the bytes that the backward pass needs over tokens, in double logarithms: 1 is linear.
- **Decoding** is of the default size, 384 wide and 8 layers, a row at a time. Averaged over tokens 1 … \
256 neither it nor RoPE's is 10 times as fast as forwarding anew. That would be 5.8 ms a token; the matrix-vector \
products alone, which read all 56 MiB of weights, take 4.3 ms. A second thread makes forwarding anew faster, and \
cached decoding not: by one thread tokens 257 … 264 are 14.6 times as fast.
- **Heads of 48.** The key bias is one more feature of queries, keys and values; fused attention by itself takes 1.14 \
times as long with 49."""

HEADS, CONTEXT = 4, 256
MODEL: dict[str, Any] = {"vocab_size": 1024, "d_model": 192, "layers": 4, "heads": HEADS, "context": CONTEXT}
SMALL: dict[str, Any] = {"vocab_size": 1024, "d_model": 64, "layers": 2, "heads": HEADS, "context": 64}
TABLE = EmbeddingConfig(kind="table")


def run(quick: bool = False) -> list[Row]:
    """Rows of the table; `ratio` and `asked` as `ABOUT` says, `parity` with the plain way in this run."""
    turns = 3 if quick else 9
    torch.manual_seed(0)
    rows = [_naive(turns), *(_rope(h, T, turns) for h, T in ((48, CONTEXT), (64, CONTEXT), (64, 1024)))]
    rows += [_layer(d, CONTEXT, turns) for d in ((192,) if quick else (192, 256))]
    rows += [_linear(T, max(turns // 2, 2)) for T in ((2048,) if quick else (1024, 2048, 4096))]
    rows.append(_memory())
    rows += [_decoding(name, CONTEXT, 8, ">= 10", min(turns, 5)) for name in ("interference", "integrated", "linear")]
    if not quick:
        rows += [_decoding(name, 0, CONTEXT, "", 2) for name in ("interference", "rope")]
    rows += [_step("64 wide, 16 × 64 tokens", SMALL, 16, 16, turns)]
    return rows if quick else [*rows, _step("192 wide, 4 × 256 tokens", MODEL, 48, 4, turns)]


def _waves(T: int, h: int, batch: int = 2) -> list[Tensor]:
    """Amplitudes and phases of queries and keys, W = h / 2, and values; positions are in the phases."""
    W = h // 2
    angle = turned(torch.arange(T), ladder(W, 1e4), torch.float32)
    shape = (batch, HEADS, T, W)
    inputs = [
        torch.rand(shape) + 0.1, torch.randn(shape) + angle, torch.rand(shape) + 0.1, torch.randn(shape) + angle,
        torch.randn(batch, HEADS, T, h),
    ]  # fmt: skip
    return [part.requires_grad_() for part in inputs]


def _through(function: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    for part in inputs:
        part.grad = None
    function(*inputs).sum().backward()


def _parity(ours: Tensor, plain: Tensor, tolerance: float = 1e-4) -> str:
    difference = float((ours.detach() - plain.detach()).abs().max())
    return f"{'equal' if difference <= tolerance else 'differ'}: to {difference:.0e}"


def _row(what: str, ours: list[float], plain: list[float], asked: str, parity: str, faster: bool) -> Row:
    return {
        "what": what, "ours": milliseconds(ours), "plain": milliseconds(plain), "asked": asked, "parity": parity,
        "ratio": str(ratio(plain, ours) if faster else ratio(ours, plain)),
    }  # fmt: skip


def _naive(turns: int) -> Row:
    inputs = _waves(CONTEXT, 48)
    ways = {impl: partial(interference_attention, scale=48**-0.5, impl=impl) for impl in ("sdpa", "naive")}
    seconds = interleaved({name: partial(_through, way, inputs) for name, way in ways.items()}, min(turns, 3),
                          clock=process_time)  # fmt: skip
    parity = _parity(ways["sdpa"](*inputs), ways["naive"](*inputs))
    what = f"function, {CONTEXT} tokens, heads of 48: SDPA against the naive form"
    return _row(what, seconds["sdpa"], seconds["naive"], ">= 50", parity, faster=True)


def _rope_attention(query: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(rotate(query, cos, sin), rotate(key, cos, sin), value, is_causal=True)


def _rope(h: int, T: int, turns: int) -> Row:
    """On fixed phases, with the positions added inside, as RoPE turns inside; `cross` terms are RoPE itself."""
    W = h // 2
    angle = turned(torch.arange(T), ladder(W, 1e4), torch.float32)
    cos, sin = angle.cos(), angle.sin()
    A_q, phi_q, A_k, phi_k, value = (part.detach() for part in _waves(T, h))
    polar = [part.requires_grad_() for part in (A_q, phi_q, A_k, phi_k, value)]
    query, key = (torch.cat([A * phi.cos(), A * phi.sin()], -1).detach() for A, phi in ((A_q, phi_q), (A_k, phi_k)))
    plain = [part.requires_grad_() for part in (query, key, value.detach().clone())]

    def ours(A_q: Tensor, phi_q: Tensor, A_k: Tensor, phi_k: Tensor, value: Tensor, *, terms: str = "full") -> Tensor:
        return interference_attention(
            A_q, phi_q + angle, A_k, phi_k + angle, value, terms=terms, scale=h**-0.5 / (2 if terms == "cross" else 1),
            impl="sdpa",
        )  # fmt: skip

    rope = partial(_rope_attention, cos=cos, sin=sin)
    ways = {"ours": partial(_through, ours, polar), "rope": partial(_through, rope, plain)}
    seconds = interleaved(ways, turns, clock=process_time)
    parity = _parity(partial(ours, terms="cross")(*polar), rope(*plain))
    what = f"function, {T:,} tokens, heads of {h}: SDPA against RoPE's (parity of the cross terms)"
    return _row(what, seconds["ours"], seconds["rope"], "<= 1.3", parity, faster=False)


def _layer(d: int, T: int, turns: int) -> Row:
    places = places_of(torch.zeros(1, T, dtype=torch.long), None, None)
    x = torch.randn(4, T, d, requires_grad=True)
    layers = {}
    for name, about in (("ours", AttentionConfig()), ("rope", AttentionConfig(kind="rope"))):
        config = WaveConfig(vocab_size=8, d_model=d, heads=HEADS, layers=1, embedding=TABLE, attention=about)
        layers[name] = WaveGPT(config).blocks[0].get_submodule("attention")
    ways = {name: partial(_through, lambda x, layer=layer: layer(x, places), [x]) for name, layer in layers.items()}
    seconds = interleaved(ways, turns, clock=process_time)
    what = f"layer, {T} tokens, {d} wide: interference against RoPE"
    return _row(what, seconds["ours"], seconds["rope"], "<= 1.3", "", faster=False)


def _linear(T: int, turns: int) -> Row:
    inputs = _waves(T, 48, batch=1)
    linear = partial(interference_attention, normalise="sum", impl="chunked")
    ways = {"linear": partial(_through, linear, inputs),
            "sdpa": partial(_through, partial(interference_attention, impl="sdpa"), inputs)}  # fmt: skip
    seconds = interleaved(ways, turns, clock=process_time)
    parity = _parity(linear(*inputs), interference_attention(*inputs, normalise="sum", impl="matmul"))
    asked = ">= 1" if T >= 2048 else ""
    what = f"function, {T:,} tokens: linear against SDPA (parity with the quadratic sum)"
    return _row(what, seconds["linear"], seconds["sdpa"], asked, parity, faster=True)


def _memory() -> Row:
    lengths = (512, 1024, 2048, 4096)
    kept = []
    for T in lengths:
        inputs = _waves(T, 48, batch=1)
        call = partial(interference_attention, *inputs, normalise="sum", impl="chunked")
        kept.append(kept_of(call, []).stays)
    x, y = ([math.log(value) for value in values] for values in (lengths, kept))
    middle = sum(x) / len(x)
    slope = sum((a - middle) * b for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)
    return {
        "what": f"linear form, kept for the backward pass, {lengths[0]} … {lengths[-1]:,} tokens: slope",
        "ours": f"{kept[-1] / 2**20:.1f} MiB", "plain": f"{kept[0] / 2**20:.1f} MiB", "ratio": f"{slope:.3f}",
        "asked": "<= 1.05",
    }  # fmt: skip


def _decoding(name: str, start: int, new: int, asked: str, turns: int) -> Row:
    """`new` tokens after `start`; parity of the last one's logits."""
    about = {"interference": AttentionConfig(), "integrated": AttentionConfig(phase="integrated"),
             "linear": AttentionConfig(normalise="sum"), "rope": AttentionConfig(kind="rope")}[name]  # fmt: skip
    vocab_size = 1024
    model = WaveGPT(WaveConfig(vocab_size=vocab_size, attention=about), torch.randperm(vocab_size)).eval()
    ids = torch.randint(vocab_size, (1, start + new))
    last: dict[str, Tensor] = {}

    @torch.inference_mode()
    def filled() -> Cache:
        cache = model.new_cache(start + new)
        if start:
            model(ids[:, :start], cache=cache, last=True)
        return cache

    caches = [filled() for _ in range(turns)]  # before the clock runs

    @torch.inference_mode()
    def cached() -> None:
        cache = caches.pop()
        for t in range(start, start + new):
            last["cached"] = model(ids[:, t : t + 1], cache=cache, last=True)

    @torch.inference_mode()
    def anew() -> None:
        for t in range(start, start + new):
            last["anew"] = model(ids[:, : t + 1], last=True)

    seconds = interleaved({"cached": cached, "anew": anew}, turns, warm_up=0, clock=process_time)
    what = f"decoding tokens {start + 1} … {start + new}, {name}: cached against forwarding anew"
    parity = _parity(last["cached"], last["anew"])
    return _row(what, seconds["cached"], seconds["anew"], asked, parity, faster=True)


def _step(size: str, sizes: dict[str, Any], waves: int, batch: int, turns: int) -> Row:
    ids = torch.randint(sizes["vocab_size"], (batch, sizes["context"] + 1))
    configs = {
        "wave": WaveConfig(**sizes, embedding=EmbeddingConfig(waves=waves)),
        "baseline": preset("baseline", **sizes),
    }
    steps, counts = {}, {}
    for name, config in configs.items():
        model = WaveGPT(config, torch.randperm(sizes["vocab_size"]))
        counts[name] = model.parameter_counts()["total"]
        steps[name] = partial(_train, model, build_optimizer(model), ids)
    seconds = interleaved(steps, turns, clock=process_time)
    what = f"training step, {size}: wave ({counts['wave']:,} parameters) against RoPE ({counts['baseline']:,})"
    return _row(what, seconds["wave"], seconds["baseline"], "<= 1.2", "", faster=False)


def _train(model: WaveGPT, optimizer: torch.optim.Optimizer, ids: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
    optimizer.step()
