"""What a modulator costs on other families: a forward pass against the base's, and a step against full fine-tuning.

The ways share the frozen weights, take turns in one process on the same batch, and ratios are within a turn.
"""

import copy
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Row, interleaved, milliseconds, ratio
from benchmarks.ways import LR, Kind, sharing
from modulators import FieldModulator, LerpModulator, ModulatorHandle, attach, stream_of

ABOUT = """\
A pass and a step of a BERT and a Llama with a modulator attached.

- **A pass**: the forward pass without gradients, as `open_model(…).encode` runs it, on texts of one length.
- **A step**: forward, backward and AdamW on the mean square of the last hidden state, beside full fine-tuning.
- **Weights** are random, in the sizes of the published models; times do not depend on them.
- **Clock.** The process's own CPU time.
- **Parity.** With the modulator disabled the hidden state is the base's, to the bit."""

SIZES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "all-MiniLM-L6-v2's sizes": (
        "Bert",
        {"vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
         "intermediate_size": 1536},
    ),
    "SmolLM2-135M's sizes": (
        "Llama",
        {"vocab_size": 49152, "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
         "num_key_value_heads": 3, "intermediate_size": 1536},
    ),
}  # fmt: skip
SHAPES = {"Bert": (64, 24), "Llama": (8, 24)}  # texts, tokens
KINDS: Mapping[str, Kind] = {
    "LERP": LerpModulator,
    "field, gate: centred": partial(FieldModulator, gate="centred"),
    "field, gate: source": FieldModulator,
}
ASKED = {"LERP": 1.03, "field, gate: centred": 1.10, "field, gate: source": 1.10}
ASKED_DISABLED = 1.01
TURNS = 12


def run(quick: bool = False) -> list[Row]:
    """Rows of the table; `ratio` is ours / the base's pass, then ours / a step of full fine-tuning."""
    rows: list[Row] = []
    for name, (stem, sizes) in SIZES.items():
        shape = (4, 8) if quick else SHAPES[stem]
        base = built(stem, {**sizes, "num_hidden_layers": 2} if quick else sizes)
        ids = torch.randint(10, 1000, shape, generator=torch.Generator().manual_seed(1))
        rows += measured(f"{name}, {shape[0]} × {shape[1]} tokens", base, ids, 3 if quick else TURNS)
    return rows


def built(stem: str, sizes: Mapping[str, Any]) -> Any:
    """A frozen bare model with random weights."""
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, f"{stem}Config")(**sizes)
        return getattr(transformers, f"{stem}Model")(config).requires_grad_(False).eval()


def measured(what: str, base: Any, ids: Tensor, turns: int) -> list[Row]:
    models, handles = {"base": sharing(base)}, dict[str, ModulatorHandle]()
    for name, kind in KINDS.items():
        models[name] = sharing(base)
        handles[name] = attach(models[name], kind(stream_of(base.config)))
    plain = hidden(models["base"], ids)
    same = {}
    for name, handle in handles.items():
        with handle.disabled():
            same[name] = torch.equal(hidden(models[name], ids), plain)
    parity = {name: "equal" if equal else "differ" for name, equal in same.items()}

    def passing(model: Any, context: Callable[[], AbstractContextManager[None]] = nullcontext) -> Callable[[], object]:
        def once() -> None:
            with context():
                hidden(model, ids)

        return once

    passes = {name: passing(model) for name, model in models.items()}
    passes["disabled"] = passing(models["LERP"], handles["LERP"].disabled)
    seconds = interleaved(passes, turns, 2, clock=time.process_time)
    rows = [
        {
            "what": f"{what}, a pass: {name}",
            "ours": milliseconds(seconds[name]),
            "plain": milliseconds(seconds["base"]),
            "ratio": str(ratio(seconds[name], seconds["base"])),
            "asked": f"<= {ASKED.get(name, ASKED_DISABLED)}",
            "parity": parity.get(name, parity["LERP"]),
        }
        for name in passes
        if name != "base"
    ]
    steps = {name: stepping(models[name], list(handle.modulator.parameters()), ids) for name, handle in handles.items()}
    full = copy.deepcopy(base).requires_grad_(True)
    steps["full"] = stepping(full, list(full.parameters()), ids)
    seconds = interleaved(steps, max(3, turns // 2), 1, clock=time.process_time)
    return rows + [
        {
            "what": f"{what}, a step: {name}",
            "ours": milliseconds(seconds[name]),
            "plain": milliseconds(seconds["full"]),
            "ratio": str(ratio(seconds[name], seconds["full"])),
        }
        for name in handles
    ]


@torch.no_grad()
def hidden(model: Any, ids: Tensor) -> Tensor:
    last: Tensor = model(input_ids=ids).last_hidden_state
    return last


def stepping(model: Any, trained: list[torch.nn.Parameter], ids: Tensor) -> Callable[[], object]:
    optimizer = torch.optim.AdamW([parameter for parameter in trained if parameter.requires_grad], lr=LR)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(input_ids=ids).last_hidden_state.square().mean().backward()
        optimizer.step()

    return step
