"""Bytes that two processes really send: at the start, and a step, beside what plain DistributedDataParallel sends.

Two gloo processes on this machine, each with half of every batch. What is counted is what the kernel says the sockets
of the first process have sent (TCP_INFO), headers of gloo's messages and all. Of two processes each sends a gradient
once; of n, 2 (n − 1) / n times. The limit of a step, and of a start, is therefore the trainable parameters' bytes.
"""

import os
import socket
import struct
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

from benchmarks.harness import Row, backbone

ABOUT = """\
Bytes that two gloo processes send where a backbone is frozen.

- **Counted** by the kernel at the first process's sockets (TCP_INFO).
- **Plain** DistributedDataParallel sends the whole backbone before the first step. Here each process reads it, and 32 \
bytes check that all have read the same.
- **Asked**: the bytes of the trainable parameters, which each of two processes sends once. What exceeds it is headers.
- **Parity.** After three steps both ways have learned the same to 1e-6."""

_STEPS = 3
_SENT = 200  # offset of tcpi_bytes_sent in Linux's struct tcp_info, since 4.19
_MODULATORS = ("field", "lerp")
# plain DDP, ours, and ours with the arguments that might pay
_WAYS: dict[str, dict[str, Any]] = {"plain": {}, "ours": {}, "static": {"static_graph": True}}


def bytes_sent() -> int:
    """By this process, over all TCP connections that it has open now."""
    total = 0
    for entry in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{entry}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry))) as connection:
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except OSError:  # closed meanwhile, or not of TCP
            continue
        total += struct.unpack_from("Q", info, _SENT)[0]
    return total


def run(quick: bool = False) -> list[Row]:
    """A row for each backbone and modulator; and what static_graph changes."""
    rows = []
    for shape in ("mini",) if quick else ("mini", "T5-small"):
        for modulator in _MODULATORS:
            found = measure(shape, modulator)
            rows += _rows(f"{modulator} on {shape}", found)
    return rows


def measure(shape: str, modulator: str) -> dict[str, dict[str, Any]]:
    """Way → trainable bytes, bytes at the start and in each of three steps, and what was learned."""
    with tempfile.TemporaryDirectory() as folder:
        start_processes(_process, (shape, modulator, folder), nprocs=2)
        return {way: torch.load(Path(folder, f"{way}.pt"), weights_only=True) for way in _WAYS}


def _rows(name: str, found: dict[str, dict[str, Any]]) -> list[Row]:
    ours, plain, static = (found[way] for way in ("ours", "plain", "static"))
    trainable = ours["trainable"]
    asked = f"{trainable:,} B"
    rows = []
    for what in ("at the start", "a step"):
        here, there = ours[what], plain[what]
        ratio = f"{here / there:.3g}"
        rows.append(
            {"what": f"{name}, {what}", "ours": f"{here:,} B", "plain": f"{there:,} B", "ratio": ratio, "asked": asked}
            | {"parity": _parity(ours, plain)}
        )
    rows.append(
        {
            "what": f"{name}, a step with static_graph",
            "ours": f"{static['a step']:,} B",
            "plain": f"{ours['a step']:,} B",
        }
        | {"ratio": f"{static['a step'] / ours['a step']:.3g}", "asked": asked, "parity": _parity(static, ours)}
    )
    return rows


def _parity(one: dict[str, Any], other: dict[str, Any]) -> str:
    off = max(float((one["learned"][key] - other["learned"][key]).abs().max()) for key in one["learned"])
    return "equal" if off <= 1e-6 else f"differ by {off:.2g}"


def _process(rank: int, shape: str, modulator: str, folder: str) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    warm_up = torch.ones(1)
    distributed.all_reduce(warm_up)  # the connections are made here
    for way, settings in _WAYS.items():
        found = train(rank, _module(shape, modulator, Path(folder, f"{way}{rank}")), backbone(shape), way, settings)
        if rank == 0:
            torch.save(found, Path(folder, f"{way}.pt"))
    distributed.destroy_process_group()


def train(rank: int, module: Any, model: Any, way: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Three steps of AdamW, each process on its own half of a batch."""
    began = _all_have_come()
    module.take(model)
    if way == "plain":
        del module._ddp_params_and_buffers_to_ignore
    wrapped = DistributedDataParallel(module, **settings)
    sent = {"at the start": bytes_sent() - began}
    optimizer = torch.optim.AdamW(module._parameter_groups())
    generator = torch.Generator().manual_seed(rank)
    steps = []
    for _ in range(_STEPS):
        ids = torch.randint(3, 200, (4, 12), generator=generator)
        began = _all_have_come()
        optimizer.zero_grad()
        wrapped(
            {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, :3].clone()}
        ).loss.backward()
        optimizer.step()
        steps.append(bytes_sent() - began)
    trainable = [p for p in module.parameters() if p.requires_grad]
    return {
        **sent,
        "a step": min(steps),  # the first one settles the buckets too, and the store's heartbeats come now and then
        "steps": steps,
        "trainable": sum(p.numel() * p.element_size() for p in trainable),
        "learned": {key: value.detach().clone() for key, value in module.modulator.named_parameters()},
    }


def _all_have_come() -> int:
    distributed.barrier()
    return bytes_sent()


def _module(shape: str, modulator: str, folder: Path) -> Any:
    """The LightningModule; of its backbone only the configuration is read, from a folder."""
    from modulators import FieldModulator, LerpModulator, ModulatedT5

    backbone(shape).config.save_pretrained(folder)
    torch.manual_seed(0)
    kind = FieldModulator if modulator == "field" else LerpModulator
    return ModulatedT5(partial(kind, initial_alpha=0.1), backbone=str(folder))
