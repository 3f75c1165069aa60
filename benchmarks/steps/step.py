"""Where the time of a training step goes: ways to train the same model on the same batches, and what modulators add.

Operations are counted beside seconds (`torch.utils.flop_counter`, matrix products, forward and backward). The ways take
turns in one process, each with a pass over the same batches, and ratios are within a turn: after a single step each way
would find its weights and states pushed out of the processor's cache, as in no training.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import cycle
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import SHAPES, Ratio, Row, backbone, interleaved, milliseconds, ratio
from benchmarks.steps.notebook import Notebook
from benchmarks.ways import (
    MODULATORS,
    Batch,
    Through,
    Way,
    fine_tuned,
    forward_only,
    gflop,
    lora,
    modulated,
    n_trained,
    sharing,
    wordnet_batches,
)
from modulators import FieldModulator, attach, stream_of
from probes.memory.model import kept_of

ABOUT = """\
Time of one training step beside full fine-tuning of the same model on the same batches.

- **Setup.** Batches of 32 definitions, no dropout, AdamW included. T5-small's and T5-base's sizes have random weights.
- **What a step costs.** Each product of the forward pass has two of its size in the backward pass: one for the \
gradient of its input, one for the gradient of its weight. Full fine-tuning does all three.
- **What a frozen backbone saves.** Its weights need no gradient: two products of three, **0.667**. The gradient still \
travels through every product above the lowest modulator.
- **Why counted shares differ from 0.667.** Attention's own products have no weight, and a modulator has some products \
of its own: the share rises. With the upper half or the last block modulated the encoder's backward pass ends there: \
it falls. The decoder's is always whole, 0.667.
- **Why measured ratios are lower.** Full fine-tuning also updates all weights by AdamW.
- ***Nothing at all layers*** is the floor: the same path for gradients, no arithmetic.
- **A modulator's share** is measured by difference to that floor (with AdamW), and by itself, forward and backward \
over all layers.
- ***Kept*** is what a modulator adds to the bytes that autograd keeps, beside one copy of the stream, 4 · width bytes.
- **The notebook's loop** (`benchmarks/steps/notebook.py`) tokenises in the loop, pads random batches, uses \
determinants and `.item()`. Its row compares seconds an example. Of our epoch the batches lie evenly spread by length; \
the notebook's are all alike, so its first ones are timed.
- **Parity.** With the modulator disabled each way has the frozen model's loss; the notebook's loss is ours."""

FULL, FLOOR = "full fine-tuning", "nothing at all layers"
TURNS = {"mini": (8, 12), "T5-small": (2, 8), "T5-base": (1, 4)}  # batches, passes over them
EPOCH = {"mini": (30, 3), "T5-small": (8, 2)}  # batches, turns
ASKED = {"all layers": 0.68, "the upper half": 0.50, "mini: field at all layers": 0.75}
SHARE = {"field": 0.10, "LERP": 0.03}  # at T5-small's shape
EPOCHS_FASTER = 3
TOLERANCE = 1e-4  # of a loss of a few nats, in fp32, sums in another order


def run(quick: bool = False) -> list[Row]:
    """Rows of the table; `ratio` is ours / plain, of the notebook's loop plain / ours."""
    torch.manual_seed(0)
    batches, data = wordnet_batches(-1)
    widths = sorted(range(len(batches)), key=lambda i: batches[i]["input_ids"].numel())
    rows: list[Row] = []
    for shape in SHAPES[:1] if quick else SHAPES:
        model = backbone(shape)
        n, turns = (3, 2) if quick else TURNS[shape]
        rows += step_rows(shape, model, [batches[i] for i in spread(widths, n)], turns)
        if shape in EPOCH:
            n, turns = (4, 1) if quick else EPOCH[shape]
            rows.append(epoch_row(shape, model, data, set(spread(widths, n)), turns))
    return rows


def spread(ordered: list[int], n: int) -> list[int]:
    """n of them, evenly: the middles of n equal parts."""
    return [ordered[int((i + 0.5) * len(ordered) / n)] for i in range(n)]


def ways_of(model: Any) -> dict[str, Way]:
    """Name → way."""
    layers = model.config.num_layers
    places = {"all layers": None, "the upper half": list(range(layers // 2, layers)), "the last layer": [layers - 1]}
    ways = {"forward only": forward_only(model), FLOOR: modulated(model, Through)}
    for where, chosen in places.items():
        for name, kind in MODULATORS.items():
            ways[f"{name} at {where}"] = modulated(model, kind, chosen)
    ways["LoRA of the field's size"] = lora(model, n_trained(ways["field at all layers"]))
    ways[FULL] = fine_tuned(model)
    return ways


def step_rows(shape: str, model: Any, batches: list[Batch], turns: int) -> list[Row]:
    ways = ways_of(model)
    middle = batches[len(batches) // 2]
    parity = same_base(ways, middle)
    counted = {name: gflop(way, middle) for name, way in ways.items()}
    kept = {name: kept_of(partial(way.loss, middle), way.model.parameters()).stays for name, way in ways.items()}
    alone = {
        f"{name} alone": alone_of(ways[f"{name} at all layers"].model, kind, batches)
        for name, kind in MODULATORS.items()
    }
    calls = {name: stepping(way, batches) for name, way in ways.items()}
    adamw = {f"AdamW of {name}": optimizing(ways[f"{name} at all layers"]) for name in MODULATORS}
    passes = {name: partial(repeated, call, len(batches)) for name, call in (calls | alone | adamw).items()}
    timed = interleaved(passes, turns)
    seconds = {name: [each / len(batches) for each in times] for name, times in timed.items()}

    shortest, longest = min(widths(batches)), max(widths(batches))
    size = f"{len(middle['input_ids'])} × {shortest if shortest == longest else f'{shortest} … {longest}'} tokens"
    rows: list[Row] = []
    for name in ways:
        share = f"{counted[name]:.3g} GFLOP, {counted[name] / counted[FULL]:.3f} of full fine-tuning's"
        asked = ASKED.get(f"{shape}: {name}", ASKED.get(name.partition(" at ")[2]) if name != FLOOR else None)
        rows.append(
            {
                "what": f"{shape}: {name}; {size}, {share}",
                "ours": milliseconds(seconds[name]),
                "plain": milliseconds(seconds[FULL]),
                "ratio": str(ratio(seconds[name], seconds[FULL])),
                "asked": f"<= {asked:.2f}" if asked else "",
                "parity": parity,
            }
        )
    for name in MODULATORS:
        whole = seconds[f"{name} at all layers"]
        floor = ratio(seconds[FLOOR], whole)
        most = f"<= {SHARE[name]:.2f}" if shape == "T5-small" else ""
        n = n_trained(ways[f"{name} at all layers"])
        for what, part, found in (
            (
                "share of its step, by difference to nothing",
                None,
                Ratio(1 - floor.middle, 1 - floor.high, 1 - floor.low),
            ),
            ("share of its step, by itself", seconds[f"{name} alone"], ratio(seconds[f"{name} alone"], whole)),
            (
                f"share of AdamW over its {n:,} numbers",
                seconds[f"AdamW of {name}"],
                ratio(seconds[f"AdamW of {name}"], whole),
            ),
        ):
            rows.append(
                {
                    "what": f"{shape}: {name}, {what}",
                    "ours": milliseconds(part) if part else f"{1e3 * (median(whole) - median(seconds[FLOOR])):.3g} ms",
                    "plain": milliseconds(whole),
                    "ratio": str(found),
                    "asked": "" if "AdamW" in what else most,
                }
            )
        tokens = middle["input_ids"].numel() * model.config.num_layers
        added = (kept[f"{name} at all layers"] - kept[FLOOR]) / tokens
        copy = 4 * model.config.d_model
        rows.append(
            {
                "what": f"{shape}: {name}, kept for the backward pass, a token and layer",
                "ours": f"{added:,.0f} B",
                "plain": f"{copy:,} B",
                "ratio": f"{added / copy:.2f}",
            }
        )
    return rows


def widths(batches: list[Batch]) -> list[int]:
    return [batch["input_ids"].shape[1] for batch in batches]


def same_base(ways: Mapping[str, Way], batch: Batch) -> str:
    """Whether all ways have one loss while what is attached is off, before any step."""
    losses = [way.base_loss(batch) for way in ways.values()]
    off = max(losses) - min(losses)
    return f"{'equal' if off == 0 else 'differ'}: base's loss to {off:.0e}"


def stepping(way: Way, batches: list[Batch]) -> Callable[[], object]:
    """Each call takes the next batch; all ways walk through them alike."""
    following: Iterator[Batch] = cycle(batches)
    return lambda: way.step(next(following))


def repeated(call: Callable[[], object], times: int) -> None:
    for _ in range(times):
        call()


def alone_of(model: Any, kind: Any, batches: list[Batch]) -> Callable[[], object]:
    """A modulator over all layers, forward and backward, on streams of the batches' sizes."""
    stream = stream_of(model.config)
    modulator = kind(stream)
    inputs: list[tuple[Tensor, Tensor]] = []
    for batch in batches:
        ids = batch["input_ids"]
        inputs.append((torch.randn(*ids.shape, stream.d_model, requires_grad=True), ids))
    following = cycle(inputs)

    def call() -> None:
        residual, ids = next(following)
        residual.grad = None
        modulator.zero_grad(set_to_none=True)
        out, ready = residual, modulator.prepare(ids)
        for layer in range(stream.n_layers):
            out = modulator(out, layer, ids, prepared=ready)
        out.backward(torch.ones_like(out))

    return call


def optimizing(way: Way) -> Callable[[], object]:
    """AdamW's step alone, on gradients of zero."""
    assert way.optimizer is not None
    parameters = [p.detach().clone().requires_grad_() for group in way.optimizer.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    return torch.optim.AdamW(parameters, fused=True).step


def epoch_row(shape: str, model: Any, data: Any, chosen: set[int], turns: int) -> Row:
    """Seconds an example, ours and the notebook's."""
    field = FieldModulator(stream_of(model.config))
    notebook = Notebook(sharing(model), field, data)
    ours = sharing(model)
    attach(ours, field)
    way = Way(ours, list(field.parameters()))
    batch = notebook.batch(0, data.batch_size)
    off = abs(float(way.loss(batch).detach()) - float(notebook.loss(batch).detach()))

    def epoch() -> None:
        loader = data.train_dataloader()
        for i, rows in enumerate(loader.batch_sampler):
            if i in chosen:
                way.step(loader.collate_fn([loader.dataset[row] for row in rows]))

    n = len(chosen)
    notebook.train(1, data.batch_size)  # warm; ours is from its loss
    seconds = interleaved({"ours": epoch, "notebook": lambda: notebook.train(n, data.batch_size)}, turns, warm_up=0)
    examples = n * data.batch_size
    each = {name: f"{1e3 * median(times) / examples:.3g} ms" for name, times in seconds.items()}
    return {
        "what": f"{shape}: an epoch with the field at all layers, an example (of {n} batches)",
        "ours": each["ours"],
        "plain": each["notebook"],
        "ratio": str(ratio(seconds["notebook"], seconds["ours"])),
        "asked": f">= {EPOCHS_FASTER}",
        "parity": f"{'equal' if off <= TOLERANCE else 'differ'}: loss on a batch to {off:.0e}",
    }
