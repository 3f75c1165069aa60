"""A training step above cached frozen layers, against full fine-tuning of the same model on the same batches.

A step is forward, backward, clipping and AdamW, without dropout, on batches of WordNet's definitions. The
modulator sits on the upper half of the encoder's blocks, or on the last. The limit beside each time is the share of
full fine-tuning's FLOPs (products alone, as `torch.utils.flop_counter` counts them; AdamW, norms and the modulator's
volumes are not in it). Parity: the losses of two passes over the batches and the modulator after them, with the cache
and without it, to the bit.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import Row, backbone, interleaved, milliseconds, ratio
from datamodules import WordNetDataModule
from modulators import FieldModulator, LerpModulator, attach, stream_of
from modulators.training.lower_cache import CacheSettings, LowerCache

ABOUT = """\
A step on a batch of 32 with `model.cache`, beside full fine-tuning.

- **Ratio** is ours / full fine-tuning.
- ***Filling*** is a run's first epoch with a cache, against an epoch without one: what lies above 1 is the cache's \
whole cost in time."""

ASKED = {"upper half": (0.50, 0.47), "last layer": (None, 0.34)}
KINDS = {"LERP": LerpModulator, "field": FieldModulator}
CPU = torch.device("cpu")
Batch = dict[str, Any]
Step = Callable[[], list[float]]


def run(quick: bool = False) -> list[Row]:
    """Rows of the table; `ratio` is ours / full fine-tuning."""
    batches = some_batches(2 if quick else 3)
    rows: list[Row] = []
    for shape in ("mini",) if quick else ("mini", "T5-small"):
        rows += of_shape(shape, batches, turns=3 if quick else 5 if shape == "T5-small" else 15)
    return rows


def some_batches(n: int) -> list[Batch]:
    """Training batches of the default run, from the shortest definitions to the longest."""
    data = WordNetDataModule(regroup=False)
    data.setup("fit")
    batches = sorted(data.train_dataloader(), key=lambda batch: int(batch["attention_mask"].sum()))
    chosen = [batches[round((i + 0.5) * len(batches) / n)] for i in range(n)]
    return [batch | {"number": number} for number, batch in enumerate(chosen)]


def of_shape(shape: str, batches: Sequence[Batch], turns: int) -> list[Row]:
    model = backbone(shape)
    n = model.config.num_layers
    parts = {"upper half": list(range(n // 2, n)), "last layer": [n - 1]}
    full = full_fine_tuning(copy.deepcopy(model), batches)
    ways: dict[str, Step] = {"full": full}
    flops, parity = {"full": counted(full)}, {}
    for (part, layers), (learns, kind) in product(parts.items(), KINDS.items()):
        name = f"{learns}, {part}"
        make = partial(Frozen, kind, model, layers, batches)
        plain, cached = make(cached=False), make(cached=True)
        parity[name] = "equal to the bit" if equal(plain, cached) else "differ"
        ways |= {name: plain, f"{name}, cached": cached, f"{name}, filling": make(cached=True, anew=True)}
        flops |= {name: counted(plain), f"{name}, cached": counted(cached)}
    seconds = interleaved(ways, turns)
    of_one = {way: [time / len(batches) for time in times] for way, times in seconds.items()}
    rows: list[Row] = []
    for name in parity:
        for way, asked in zip((name, f"{name}, cached"), ASKED[name.partition(", ")[2]], strict=True):
            rows.append(
                {
                    "what": f"{shape}: {way}; limit by FLOPs {flops[way] / flops['full']:.2f}",
                    "ours": milliseconds(of_one[way]),
                    "plain": milliseconds(of_one["full"]),
                    "ratio": str(ratio(of_one[way], of_one["full"])),
                    "asked": f"≤ {asked:.2f}" if asked else "",
                    "parity": parity[name] if "cached" in way else "",
                }
            )
        filling = f"{name}, filling"
        pays = epochs_until_it_pays(*(median(of_one[way]) for way in (filling, name, f"{name}, cached")))
        rows.append(
            {
                "what": f"{shape}: {filling}, against no cache; pays after {pays}",
                "ours": milliseconds(of_one[filling]),
                "plain": milliseconds(of_one[name]),
                "ratio": str(ratio(of_one[filling], of_one[name])),
            }
        )
    return rows


def epochs_until_it_pays(filling: float, plain: float, cached: float) -> str:
    """When the first epoch's loss is won back, from seconds of a step."""
    if cached >= plain:
        return "no epoch"
    return f"{1 + max(0.0, filling - plain) / (plain - cached):.2f} epochs"


def trained(loss: Tensor, optimizer: torch.optim.Optimizer) -> float:
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def full_fine_tuning(model: Any, batches: Sequence[Batch]) -> Step:
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> list[float]:
        losses = []
        for batch in batches:
            inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "labels")}
            losses.append(trained(model(**inputs, use_cache=False).loss, optimizer))
        return losses

    return step


class Frozen:
    """Steps of a modulator on some layers of a frozen model, with a cache of what is below them, or without one."""

    def __init__(
        self, kind: Any, model: Any, layers: list[int], batches: Sequence[Batch], cached: bool, anew: bool = False
    ) -> None:
        torch.manual_seed(0)
        self.modulator = kind(stream_of(model.config))
        model = copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})  # with the same weights
        attach(model, self.modulator, layers)
        self._model, self._batches, self._anew = model, batches, anew
        self._optimizer = torch.optim.AdamW(self.modulator.parameter_groups(1e-3, 0.01))
        caching = CacheSettings("memory", None, 4.0, None)
        self._cache = LowerCache(caching, model.encoder, layers[0], False, True) if cached else None
        if cached:
            self._open()

    def _open(self) -> None:
        assert self._cache is not None
        shapes = [(len(batch["input_ids"]), batch["input_ids"].shape[1]) for batch in self._batches]
        self._cache.open(shapes, CPU, Path())

    def __call__(self) -> list[float]:
        if self._anew:
            self._open()
        return [trained(self._loss(batch), self._optimizer) for batch in self._batches]

    def _loss(self, batch: Batch) -> Tensor:
        ids, mask = batch["input_ids"], batch["attention_mask"]
        inputs: Batch = {"input_ids": ids}
        if self._cache is not None:
            inputs = {"encoder_outputs": (self._cache(batch["number"], ids, mask),)}
        loss: Tensor = self._model(**inputs, attention_mask=mask, labels=batch["labels"], use_cache=False).loss
        return loss


def equal(one: Frozen, other: Frozen) -> bool:
    """Whether two passes give the same losses, and modulators, to the bit."""
    losses = [(one(), other()) for _ in range(2)]
    pairs = zip(one.modulator.state_dict().values(), other.modulator.state_dict().values(), strict=True)
    return all(a == b for a, b in losses) and all(torch.equal(a, b) for a, b in pairs)


def counted(step: Step) -> int:
    """FLOPs of matrix products and attention."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())
