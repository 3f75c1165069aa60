"""The field's gates against LoRA of their size: a whole step on the bundled backbone's encoder.

The ways take turns in one process on the same batch, and ratios are within a turn.
"""

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.harness import Row, backbone, interleaved, milliseconds, ratio
from benchmarks.steps.step import same_base
from benchmarks.ways import Way, drawn_batch, lora, modulated, n_trained
from modulators import FieldModulator

ABOUT = """\
The field's gates beside LoRA with as many numbers as possible of the centred field's.

- **Setup.** A step (forward, backward, AdamW) on 192 texts of 24 tokens through `mini`'s encoder. The loss correlates \
the texts' cosines with fixed random numbers, as the relational objective does with similarities.
- **Parity.** With the modulator disabled each way has the frozen model's loss."""

CENTRED = partial(FieldModulator, gate="centred")
FIELDS: dict[str, Any] = {
    "gate: centred": CENTRED,
    "gate: centred, features: linear": partial(CENTRED, features="linear"),
    "gate: centred, features: constant": partial(CENTRED, features="constant"),
    "gate: source": FieldModulator,
}
ASKED = 1.15  # of the centred gate
SHAPE, TURNS = (192, 24), 30


def run(quick: bool = False) -> list[Row]:
    """Rows of the table; `ratio` is the field's step / LoRA's."""
    torch.manual_seed(0)
    model = backbone("mini")
    texts, tokens = (16, 24) if quick else SHAPE
    ways = {name: modulated(model, kind) for name, kind in FIELDS.items()}
    ways["LoRA"] = lora(model, n_trained(ways["gate: centred"]))
    for way in ways.values():
        way.call = partial(correlation, way, torch.randn(texts, texts, generator=torch.Generator().manual_seed(1)))
    batch = drawn_batch(model.config.vocab_size, [tokens] * texts)
    parity = same_base(ways, batch)
    steps = {name: partial(way.step, batch) for name, way in ways.items()}
    seconds = interleaved(steps, 3 if quick else TURNS)
    size = f"mini's encoder, {texts} × {tokens} tokens"
    return [
        {
            "what": f"{size}: field, {name}, {n_trained(ways[name]):,} numbers; LoRA {n_trained(ways['LoRA']):,}",
            "ours": milliseconds(seconds[name]),
            "plain": milliseconds(seconds["LoRA"]),
            "ratio": str(ratio(seconds[name], seconds["LoRA"])),
            "asked": f"<= {ASKED}" if name == "gate: centred" else "",
            "parity": parity,
        }
        for name in FIELDS
    ]


def correlation(way: Way, wanted: torch.Tensor, input_ids: Any, attention_mask: Any, **_: Any) -> SimpleNamespace:
    """Loss in the place of the model's own: 1 − the correlation of all texts' cosines with `wanted`."""
    hidden = way.model.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    z = F.normalize(hidden.mean(1), dim=-1)
    pairs = torch.stack([(z @ z.t()).flatten(), wanted.flatten()])
    return SimpleNamespace(loss=1 - torch.corrcoef(pairs)[0, 1])
