"""Lightning's Trainer as `train.py fit` builds it, against a bare loop over the same batches.

The Trainer has everything of a default run: metrics.csv and TensorBoard, checkpoints, α's convergence, the divergence
check, signals, and the progress bar of a terminal; nothing is validated inside. The bare loop has the same module and
loader, and does what has to be done: forward, backward, clipping, AdamW, the schedule. They take turns of some steps
each, inside one process: whenever a turn of the Trainer's is over, its clock stops and the bare loop learns from the
same batches. Parity: both have the same losses, to the bit.
"""

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from itertools import count
from time import perf_counter, process_time
from typing import Any
from unittest.mock import patch

import lightning.pytorch as pl
import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

import train
from benchmarks.harness import Row, milliseconds, ratio
from callbacks import PentachoronHealth, RelationalAlignment, RunReport
from modulant.backbones.t5 import load_backbone
from modulant.schedule import factor_at
from modulators import ModulatedT5

LIMIT = 1.05
ABOUT = "A step under Lightning's Trainer with all default callbacks, beside a bare loop over the same batches."
STEPS = 20  # in a turn: what is done every ten steps is done twice


class _Terminal(io.StringIO):
    """Somebody watches: the bar is drawn."""

    def isatty(self) -> bool:
        return True


class Turns(pl.Callback):
    """Lets a bare loop learn from the same batches, whenever the Trainer has done `STEPS` of them."""

    def __init__(self) -> None:
        self.wall: tuple[list[float], list[float]] = ([], [])  # the Trainer's, the bare loop's
        self.cpu: tuple[list[float], list[float]] = ([], [])
        self.losses: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        self._began = (0.0, 0.0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._bare = _bare_steps(trainer, pl_module)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step % STEPS:
            return
        if trainer.global_step:
            self._note(0)
        self._began = _clocks()
        self.losses[1].extend(next(self._bare) for _ in range(STEPS))
        self._note(1)
        self._began = _clocks()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.losses[0].append(outputs["loss"])

    def _note(self, whose: int) -> None:
        wall, cpu = _clocks()
        self.wall[whose].append(wall - self._began[0])
        self.cpu[whose].append(cpu - self._began[1])


def _clocks() -> tuple[float, float]:
    return perf_counter(), process_time()


def _bare_steps(trainer: pl.Trainer, module: Any) -> Iterator[torch.Tensor]:
    """Each step's loss; the module is a twin of the Trainer's, with the same weights."""
    modulator = module.modulator
    twin = ModulatedT5(lambda stream: type(modulator)(stream, **modulator.init_args), module.backbone, lr=module.lr)
    twin.take(load_backbone(module.backbone))
    twin.modulator.load_state_dict(modulator.state_dict())
    optimizer = torch.optim.AdamW(twin._parameter_groups(), lr=twin.lr, weight_decay=twin.weight_decay)
    steps = int(trainer.estimated_stepping_batches)
    scheduler = LambdaLR(optimizer, lambda step: factor_at("cosine", step, steps))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    theirs: Any = trainer.train_dataloader
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    for epoch in count():
        for batch in DataLoader(theirs.dataset, batch_sampler=data._epoch_batches(epoch), collate_fn=theirs.collate_fn):
            loss = twin(batch).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            scheduler.step()
            yield loss.detach()


@contextmanager
def _nothing_measured_outside() -> Iterator[None]:
    """What a run measures before its first step and after its last one takes a minute, outside of both clocks."""
    with ExitStack() as stack:
        for callback in (RelationalAlignment, PentachoronHealth):
            stack.enter_context(patch.object(callback, "on_train_start"))
            stack.enter_context(patch.object(callback, "on_train_end"))
            stack.enter_context(patch.object(callback, "summary", return_value={}))
        stack.enter_context(patch.object(RunReport, "on_fit_end"))
        yield


def measure(config: str, turns: int) -> Turns:
    """One run of `train.py fit`, its steps and the bare loop's in turns."""
    from cli.running.run import ModulantCLI

    watching, build = Turns(), ModulantCLI._instantiate_trainer

    def with_turns(self: ModulantCLI, config: Any, callbacks: list[pl.Callback]) -> pl.Trainer:
        return build(self, config, [watching, *callbacks])

    with tempfile.TemporaryDirectory() as folder:
        words = [
            "fit",
            "--config",
            config,
            "--config",
            "lemma.yaml",
            "--output",
            folder,
            "--trainer.accelerator",
            "cpu",
        ]
        words += ["--report.figures", "false", "--trainer.limit_val_batches", "0"]
        words += ["--trainer.max_steps", str(STEPS * (turns + 1) + 1)]
        terminal = {"TERM": "xterm-256color", "COLUMNS": "120"}
        with (
            patch.object(ModulantCLI, "_instantiate_trainer", with_turns),
            _nothing_measured_outside(),
            patch.dict(os.environ, terminal),
            redirect_stdout(_Terminal()),
        ):
            train.main(words)
    return watching


def run(quick: bool = False) -> list[Row]:
    """Rows of the table; `ratio` is ours / plain."""
    rows: list[Row] = []
    for config in ("field.yaml",) if quick else ("field.yaml", "lerp.yaml"):
        turns = measure(config, 3 if quick else 24)
        ours, plain = (torch.stack(losses[: STEPS * len(turns.wall[0])]) for losses in turns.losses)
        trainer, bare = turns.wall[0][1:], turns.wall[1][1 : len(turns.wall[0])]  # the first turn warms up
        rows.append(
            {
                "what": f"a step, {config}, mini, batch 32: Trainer with all default callbacks / bare loop",
                "ours": milliseconds([seconds / STEPS for seconds in trainer]),
                "plain": milliseconds([seconds / STEPS for seconds in bare]),
                "ratio": str(ratio(trainer, bare)),
                "asked": f"≤ {LIMIT}",
                "parity": "equal: all losses, to the bit" if torch.equal(ours, plain) else "differ: losses",
            }
        )
        cpu, bare_cpu = turns.cpu[0][1:], turns.cpu[1][1 : len(turns.cpu[0])]
        rows.append(
            {
                "what": f"the same, {config}, processor time of the process, all steps together",
                "ours": milliseconds([sum(cpu) / len(cpu) / STEPS]),
                "plain": milliseconds([sum(bare_cpu) / len(bare_cpu) / STEPS]),
                "ratio": f"{sum(cpu) / sum(bare_cpu):.3f} (wall {sum(trainer) / sum(bare):.3f})",
            }
        )
    return rows
