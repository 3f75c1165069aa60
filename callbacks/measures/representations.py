"""One vector per entry of the population, for the callbacks that look at geometry.

Computed lazily and cached: the base's as long as the module lives, and on the disk; the modulated ones until a weight
of the modulator changes.
"""

import hashlib
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from rich import get_console
from rich.errors import LiveError
from rich.progress import Progress
from torch import Tensor, nn

from callbacks.interfaces import Encode, PopulationSource, modulated, population_source
from callbacks.measures.untrained import module_content
from callbacks.stopping.interruption import stop_requested, stop_together
from modulant.metrics import EntryRepresentations
from modulant.storage import content_key, kept
from modulators.training.linears import faster_linears
from modulators.training.processes import shard_batches

_BAR_AFTER = 3.0  # seconds


def entry_representations(trainer: L.Trainer, module: L.LightningModule, base: bool) -> Tensor:
    """Masked means of the encoder's last hidden state, (P, D) fp32, equal on all ranks. A collective under DDP.

    `base`: with the modulator detached; the module must then have a handle. The result is shared: do not write to it.
    """
    source = population_source(trainer)
    cache = _CACHES.get(module)
    if cache is None or cache.source() is not source:
        cache = _CACHES[module] = _Cache(weakref.ref(source))
    if base:
        if cache.base is None:
            cache.base = _base(trainer, module)
        return cache.base
    digest = _digest(module)
    # Rank 0 decides, as encoding is a collective: a last update may round to nothing on one rank alone.
    if trainer.strategy.broadcast(cache.modulated is None or cache.digest != digest):
        cache.modulated = encode_population(trainer, module, modulated(module).encode, "entries")
        cache.digest = digest
    assert cache.modulated is not None
    return cache.modulated


def _base(trainer: L.Trainer, module: L.LightningModule) -> Tensor:
    """The frozen model's, from the disk if an earlier run had the same weights and texts."""
    handle = modulated(module).handle
    assert handle is not None, "only a module with a handle has a base"

    def encoded() -> dict[str, Any]:
        with handle.disabled():
            return {"points": encode_population(trainer, module, modulated(module).encode, "base").cpu().numpy()}

    content = module_content(module, learned=False)
    key = (
        None if content is None else content_key("population", content, population_source(trainer).population_batches())
    )
    return torch.from_numpy(kept("representations", key, encoded)["points"]).to(module.device)


def encode_population(trainer: L.Trainer, module: L.LightningModule, encode: Encode, label: str) -> Tensor:
    """Entry representations by any function (input ids, attention mask) → (B, S, D), never cached."""
    source = population_source(trainer)
    device = module.device
    metric = EntryRepresentations(len(source.population), modulated(module).stream.d_model).to(device)
    batches = shard_batches(source.population_batches(), trainer.global_rank, trainer.world_size)
    quick = nullcontext() if getattr(module, "compiled", False) else faster_linears(module)
    with torch.no_grad(), evaluating(module), quick, progress(trainer, len(batches), f"encoding {label}") as advance:
        for (rows, input_ids, attention_mask), counts in batches:
            if stop_requested(trainer, together=True):
                break
            attention_mask = attention_mask.to(device)
            with trainer.precision_plugin.forward_context():
                hidden = encode(input_ids.to(device), attention_mask)
            if counts:
                metric.update(rows, hidden, attention_mask)
            advance()
        stop_together(trainer)
        return metric.compute()


@dataclass
class _Cache:
    source: Callable[[], PopulationSource | None]
    base: Tensor | None = None
    modulated: Tensor | None = None
    digest: bytes = field(default=b"")


_CACHES: weakref.WeakKeyDictionary[nn.Module, _Cache] = weakref.WeakKeyDictionary()


def _digest(module: L.LightningModule) -> bytes:
    """Hash of all weights that may change; a step count would miss weights that were set by hand."""
    modulator = modulated(module).modulator
    changing = module if modulator is None else modulator
    digest = hashlib.blake2b()
    for name, value in changing.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def progress(trainer: L.Trainer, total: int, label: str) -> Iterator[Callable[[], None]]:
    """A progress bar that appears after 3 s; below the trainer's own, where rich can nest them."""
    console = get_console()
    wanted = trainer.is_global_zero and console.is_terminal and trainer.progress_bar_callback is not None
    bar = Progress(console=console, transient=True)
    started, done, started_bar = time.monotonic(), 0, False
    task = bar.add_task(label, total=total)

    def advance() -> None:
        nonlocal wanted, done, started_bar
        done += 1
        bar.update(task, completed=done)
        if wanted and time.monotonic() - started > _BAR_AFTER:
            wanted = False
            with suppress(LiveError):  # before rich 14.1 there is one live display at a time
                bar.start()
                started_bar = True

    try:
        yield advance
    finally:
        if started_bar:  # stopping one that was not started prints an empty line
            bar.stop()
