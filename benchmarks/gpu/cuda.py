"""What CUDA alone shows: where the host waits for the GPU, and the peak of its memory."""

import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.setting import NeedsGpuError, Setting
from benchmarks.harness import Row
from benchmarks.ways import MODULATORS, modulated, modulated_module
from probes.memory.model import kept_of


def waiting(now: Setting) -> Iterator[Row]:
    """Operations of a training pass at which the host waits for the GPU, with the line of Python that asked."""
    if not now.cuda:
        raise NeedsGpuError
    for name, kind in MODULATORS.items():
        model = now.backbone()
        module = modulated_module(model, kind)
        optimizer = torch.optim.AdamW(module.modulator.parameters())
        batch: dict[str, Any] = dict(now.batches(model)[2])
        batch["padded"] = not bool(batch["attention_mask"].all())  # as the DataModule has it, from the host

        def step(module: Any = module, optimizer: Any = optimizer, batch: Any = batch) -> None:
            optimizer.zero_grad(set_to_none=True)
            module(batch).loss.backward()
            optimizer.step()

        step()
        torch.cuda.synchronize()
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        said = [w for w in heard if "called a synchronizing" in str(w.message)]
        where = sorted({f"{Path(w.filename).name}:{w.lineno}" for w in said})
        yield {
            "what": f"{now.shape}, {name}: waits for the GPU in a step{': ' + ', '.join(where) if where else ''}",
            "ours": str(len(said)),
            "asked": "0",
        }


def memory(now: Setting) -> Iterator[Row]:
    """The peak of a step, beside weights, four times what learns, and what autograd keeps."""
    if not now.cuda:
        raise NeedsGpuError
    for name, kind in MODULATORS.items():
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        model = now.backbone()
        way = modulated(model, kind)
        batch = now.batches(model, 512)[2]
        assert way.modulator is not None
        learned = sum(p.numel() * p.element_size() for p in way.modulator.parameters())
        weights = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
        tensors = [*model.parameters(), *model.buffers(), *way.modulator.parameters(), *way.modulator.buffers()]
        kept = kept_of(partial(way.loss, batch), tensors).stays
        way.step(batch)
        torch.cuda.reset_peak_memory_stats()
        way.step(batch)
        peak = torch.cuda.max_memory_allocated() - before
        counted = weights + 4 * learned + kept
        yield {
            "what": f"{now.shape}, {name}, 512 definitions: peak memory, beside what is counted",
            "ours": f"{peak / 2**20:,.0f} MiB",
            "plain": f"{counted / 2**20:,.0f} MiB",
            "ratio": f"{peak / counted:.2f}",
        }
        del model, way, batch, tensors
