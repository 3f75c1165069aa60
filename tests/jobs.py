"""Jobs for the processes of a world (`tests.worlds`): figures, trainings, and what is said where ranks differ."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jaxtyping
import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

import benchmarks.runs.wire
from callbacks import (
    AlphaConvergence,
    AtomicCheckpointIO,
    Divergence,
    FirstValidation,
    PentachoronHealth,
    RelationalAlignment,
    ShardedStrategy,
)
from datamodules import GlossDataModule, WordNetDataModule
from modulant import metrics
from modulant.backbones.families import stream_of
from modulant.backbones.sharding import load_sharded, local_shard
from modulant.backbones.t5 import load_backbone
from modulant.compiling import compiled
from modulators import FieldModulator, LerpModulator, ModulatedT5, PretrainT5, RelationalObjective, attach, load_t5
from modulators.training.frozen import t5 as frozen_t5
from modulators.training.processes import check_same_weights
from tests.worlds import SaveAt, rank, trainer_in, world_size

ENTRIES = 60  # of the WordNet that these jobs ask for, with matching: all


def spread() -> dict[str, Any]:
    """What a trainer needs to shard the backbone over its processes."""
    return {"strategy": ShardedStrategy(), "inference_mode": False}


def metric_figures(n: int) -> dict[str, float]:
    """Every metric with a distributed state, on ``n`` samples, each of which one process holds."""
    rng = np.random.default_rng(n)
    own = range(rank(), n, world_size())
    figures: dict[str, float] = {}

    quality = metrics.AnswerQuality()
    for i in range(-(-n // world_size())):
        row = own[i] if i < len(own) else 0
        logits, labels, answers = answer(row)
        quality.update(logits, labels if i < len(own) else torch.full_like(labels, -100), answers)
    figures |= {f"answers/{key}": float(value) for key, value in quality.compute().items()}

    hidden = torch.from_numpy(rng.standard_normal((n, 3, 6)).astype(np.float32))
    mask = torch.from_numpy(rng.integers(0, 2, (n, 3)))
    mask[:, 0] = 1
    representations = metrics.EntryRepresentations(n, 6)
    for row in own:
        representations.update(torch.tensor([row]), hidden[row : row + 1], mask[row : row + 1])
    points = representations.compute()
    figures |= {f"representations/{i}": value for i, value in enumerate(points.flatten().tolist())}

    distances = np.triu(rng.integers(1, 12, (n, n)), 1).astype(np.uint8)
    distances += distances.T
    held_out = rng.random(n) < 0.4
    for pairs in ("all", 20):
        alignment = metrics.RelationalAlignment(distances, held_out, pairs)  # type: ignore[arg-type]
        alignment.update(points)
        figures |= {f"relational/{pairs}/{key}": float(value) for key, value in alignment.compute().items()}
    if n >= 5:
        shape = metrics.PentachoronCV(50)
        shape.update(points)
        for key, value in shape.compute().items():  # figures, and histograms
            figures |= {f"pentachoron/{key}/{i}": float(x) for i, x in enumerate(value.reshape(-1))}
    return figures


def answer(row: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, labels and the greedy answer of an entry; every third answer is right."""
    generator = torch.Generator().manual_seed(row)
    labels = torch.randint(2, 11, (1, 1 + row % 4), generator=generator)
    logits = torch.randn(1, labels.shape[1], 11, generator=generator)
    return logits, labels, labels if row % 3 == 0 else labels + 1


def validation(
    n: int, wordnet: str, backbone: str, folder: str, baselines: bool = True, sharded: bool = False
) -> dict[str, float]:
    """`Trainer.validate` of an untrained modulator, ``n`` entries held out."""
    pl.seed_everything(0, verbose=False)
    module = ModulatedT5(partial(FieldModulator, initial_alpha=0.2), backbone=backbone)
    data = WordNetDataModule(
        backbone=backbone, nltk_data=wordnet, matching="all", split="entry", val_fraction=n / ENTRIES, batch_size=3
    )
    looks = [RelationalAlignment(baselines=baselines, bootstrap=0), PentachoronHealth(n=50)]
    trainer = trainer_in(folder, callbacks=looks, **(spread() if sharded else {}))
    (figures,) = trainer.validate(module, datamodule=data, verbose=False)
    assert len(data.corpus.held_out) == n
    return dict(figures)


def entry_by_entry(n: int, wordnet: str, backbone: str) -> dict[str, float]:
    """The first three figures of `validation` without Trainer, batches or metric."""
    pl.seed_everything(0, verbose=False)
    module = ModulatedT5(partial(FieldModulator, initial_alpha=0.2), backbone=backbone)
    module.configure_model()
    data = WordNetDataModule(
        backbone=backbone, nltk_data=wordnet, matching="all", split="entry", val_fraction=n / ENTRIES
    )
    data.setup()
    loss = right = whole = tokens = 0.0
    for row in data.corpus.held_out:
        source = torch.from_numpy(data.corpus.sources[int(row)]).long()[None]
        target = torch.from_numpy(data.corpus.targets[int(row)]).long()[None]
        with torch.no_grad():
            output = module.model(input_ids=source, labels=target)
            answered = module.model.generate(input_ids=source, max_new_tokens=target.shape[1], do_sample=False)[:, 1:]
        loss += float(output.loss) * target.shape[1]
        right += int((output.logits.argmax(-1) == target).sum())
        tokens += target.shape[1]
        whole += torch.equal(answered, target)
    return {"val/loss": loss / tokens, "val/token_accuracy": right / tokens, "val/exact_match": whole / n}


class Watch(pl.Callback):
    """Keeps the loss that is logged at each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))


@contextmanager
def traced(backend: str = "aot_eager") -> Iterator[None]:
    """Inside, no code is generated of what is compiled: `test_compiling.py` does that.

    Args:
        backend: ``aot_eager`` traces forward and backward, ``eager`` forward alone, in much less time.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # beartype is nothing to compile
        patch.setattr(frozen_t5, "compiled", partial(compiled, backend=backend))
        torch.compiler.reset()
        yield
    torch.compiler.reset()


def training(
    batch_size: int,
    wordnet: str,
    backbone: str,
    folder: str,
    workers: int = 0,
    save_at: int = 0,
    resume: str | None = None,
    sharded: bool = False,
    gradient_checkpointing: bool = False,
    accumulate: int = 1,
    compile: bool = False,
    model: dict[str, Any] | None = None,
    **part: int | float,
) -> dict[str, Any]:
    """Two epochs over 49 of 60 entries with targets of unequal length, to the end: losses, figures and weights.

    Args:
        model: other arguments of the model, such as a cache.
        part: what the trainer leaves of an epoch, by limit_train_batches or overfit_batches.

    Without the edge expert: its two features are the same number, so its LayerNorm gives zeros and its gradient is
    rounding noise, which AdamW makes steps of.
    """
    pl.seed_everything(0, verbose=False)
    made = {"modulator": partial(FieldModulator, initial_alpha=0.2, expert_ks=(2, 4))} | (model or {})
    made |= {"gradient_checkpointing": gradient_checkpointing, "compile": compile}
    module = ModulatedT5(backbone=backbone, lr=0.01, **made)
    data = WordNetDataModule(
        backbone=backbone,
        nltk_data=wordnet,
        matching="all",
        split="entry",
        val_fraction=11 / ENTRIES,
        batch_size=batch_size,
        num_workers=workers,
        regroup="cache" not in made,
    )
    first, watch = FirstValidation(), Watch()
    save = [SaveAt(save_at, f"{folder}/step_{save_at}.ckpt")] if save_at else []
    callbacks: list[pl.Callback] = [first, watch, Divergence(), *save]
    settings = {"max_epochs": 2, "gradient_clip_val": 1.0, "accumulate_grad_batches": accumulate, **part}
    settings |= spread() if sharded else {}
    trainer = trainer_in(folder, callbacks=callbacks, **settings)
    with traced("eager") if compile else nullcontext():
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    return {
        "losses": watch.losses,
        "validation": [first.figures.get("val/loss", 0.0), float(trainer.callback_metrics["val/loss"])],
        "weights": dict(module.state_dict()),
        "held": sum(local_shard(t).nbytes for t in [*module.model.parameters(), *module.model.buffers()]),
    }


def relational(
    batch_size: int, wordnet: str, backbone: str, folder: str, kind: Any = ModulatedT5, mask_share: float | None = None
) -> dict[str, Any]:
    """Two epochs of the relational objective, all its terms, over distinct synsets; the last batch is shorter."""
    pl.seed_everything(0, verbose=False)
    modulator = partial(LerpModulator, n_geometric_dims=4, initial_alpha=0.2)
    objective = RelationalObjective(verbs=0.0, task=0.3, keep=0.5)
    module = kind(modulator, backbone=backbone, lr=0.01, objective=objective)
    data = WordNetDataModule(
        backbone=backbone,
        nltk_data=wordnet,
        matching="all",
        val_fraction=0.2,
        batch_size=batch_size,
        near_pairs=0.5,
        mask_share=mask_share,
    )
    watch = Watch()
    trainer = trainer_in(folder, max_epochs=2, gradient_clip_val=1.0, callbacks=[watch])
    trainer.fit(module, datamodule=data)
    validated = trainer.callback_metrics.get("val/loss")  # an encoder has none
    return {
        "losses": watch.losses,
        "validation": [] if validated is None else [float(validated)],
        "weights": dict(module.state_dict()),
    }


def pretraining(batch_size: int, wordnet: str, folder: str) -> dict[str, Any]:
    """An epoch of span corruption and pairs, all weights learning."""
    pl.seed_everything(0, verbose=False)
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_heads": 2, "num_layers": 1, "num_decoder_layers": 1}
    module, watch = PretrainT5(**sizes), Watch()
    data = GlossDataModule(tokenizer="mini", nltk_data=wordnet, batch_size=batch_size, val_fraction=0.2)
    trainer = trainer_in(folder, max_epochs=1, callbacks=[watch])
    trainer.fit(module, datamodule=data)
    return {
        "losses": watch.losses,
        "validation": [float(trainer.callback_metrics[key]) for key in ("val/loss", "val/span_loss")],
        "weights": dict(module.state_dict()),
    }


class _Drifting(PentachoronHealth):
    """Sees a healthy cloud, but on one rank."""

    def __init__(self, seen_by: int) -> None:
        super().__init__(patience=1)
        self.seen_by = seen_by

    def _figures(self, trainer: pl.Trainer, module: pl.LightningModule, base: bool) -> dict[str, float]:
        drifted = bool(self._base) and rank() == self.seen_by
        return {"cv": 0.9 if drifted else 0.3}


class _Resting(metrics.AlphaWindow):
    """Sees alpha at rest as soon as its window is full, on one rank alone."""

    def __init__(self, seen_by: int) -> None:
        super().__init__(window=4, tolerance=1e-9)
        self._seen_by = seen_by

    @property
    def converged(self) -> bool:
        return len(self.snapshots) == self.window and rank() == self._seen_by


def disagreement(wordnet: str, backbone: str, folder: str, drift_seen_by: int, rest_seen_by: int) -> int:
    """Steps of a training of four epochs of seven, where a rank wants to stop that another would go on with.

    That the cloud has drifted is seen at the end of the first epoch, that alpha rests, at the third step.
    """
    module = ModulatedT5(partial(FieldModulator, expert_ks=(2,)), backbone=backbone, lr=0.01)
    data = WordNetDataModule(
        backbone=backbone, nltk_data=wordnet, matching="all", split="entry", val_fraction=11 / ENTRIES, batch_size=4
    )
    looks = [_Drifting(drift_seen_by), AlphaConvergence(every_n_steps=1, window=4, stop=True)]
    looks[1].metric = _Resting(rest_seen_by)
    trainer = trainer_in(folder, max_epochs=4, limit_train_batches=7, callbacks=looks)
    trainer.fit(module, datamodule=data)
    assert (drift_seen_by == 0) == (looks[0].stop_reason is not None)
    return trainer.global_step


def step_of_what_is_loaded() -> int:
    """Of a checkpoint, where each rank has read another one, as of a run that trains meanwhile."""
    read = (Path("newest.ckpt"), {"global_step": 7 + rank()})
    return int(AtomicCheckpointIO(read).load_checkpoint("newest.ckpt")["global_step"])


def hook_order(backbone: str) -> dict[str, Any]:
    """What a modulator's hook finds on a sharded block, and whether the weights are those that were read."""
    plain = load_backbone(backbone)
    mesh = init_device_mesh("cpu", (world_size(),))
    model = load_sharded(backbone, plain.config, torch.float32, mesh, torch.device("cpu"))
    whole = {name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor for name, tensor in _named(model)}
    assert plain.lm_head.weight is not plain.shared.weight
    found: dict[str, Any] = {"same": all(torch.equal(tensor, whole[name]) for name, tensor in _named(plain))}

    class Looks(FieldModulator):
        """Notes whether the weights of the block before which it is called are there."""

        def forward(self, residual: Any, layer: int, token_ids: Any = None, alpha_scale: float = 1.0) -> Any:
            weight = model.encoder.block[layer].layer[0].SelfAttention.q.weight
            seen.append([layer, not isinstance(weight, DTensor), str(residual.dtype)])
            return super().forward(residual, layer, token_ids, alpha_scale)

    seen: list[Any] = []
    modulator = Looks(stream_of(model.config))
    attach(model, modulator)
    ids = torch.tensor([[5, 6, 7, 1]])
    model(input_ids=ids, labels=ids).loss.backward()
    weight = model.encoder.block[0].layer[0].SelfAttention.q.weight
    return found | {"seen": seen, "dropped": isinstance(weight, DTensor)}


def other_weights(backbone: str) -> str:
    """What is said when the last process has another element in one of its frozen tensors."""
    model, _ = load_t5(backbone)
    check_same_weights(model)
    if rank() == world_size() - 1:
        model.decoder.block[1].layer[2].DenseReluDense.wo.weight.data[3, 2] += 1e-3
    try:
        check_same_weights(model)
    except ValueError as error:
        return str(error)
    return ""


def wire(backbone: str, folder: str) -> dict[str, Any]:
    """What `benchmarks/runs/wire.py` counts, of the field."""
    module = ModulatedT5(partial(FieldModulator, initial_alpha=0.2), backbone=backbone)
    torch.distributed.all_reduce(torch.ones(1))  # the connections are made here
    found = benchmarks.runs.wire.train(rank(), module, load_t5(backbone)[0], "ours", {})
    return {key: found[key] for key in ("at the start", "a step", "trainable")}


def _named(model: torch.nn.Module) -> Any:
    return model.named_parameters(remove_duplicate=False)
