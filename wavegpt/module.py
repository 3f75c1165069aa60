"""A wave language model, or one of its controls, as Lightning trains it on the text of a `TextDataModule`."""

import time
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from modulant.compiling import compiled
from modulant.metrics.logged import log_quality
from modulant.schedule import factor_at, group_settings, override_groups
from modulant.settings import Compile, HalfOpenUnitInterval, NonNegativeInt, PositiveInt, Seed, Share, checked
from wavegpt.config import (
    AttentionConfig,
    EmbeddingConfig,
    LossConfig,
    MlpConfig,
    OptimizerConfig,
    WaveConfig,
    WritingConfig,
)
from wavegpt.export import save
from wavegpt.model import WaveGPT
from wavegpt.observed import Observed
from wavegpt.sampling import generate, stream_text
from wavegpt.training.cost import flops_per_token
from wavegpt.training.losses import IGNORED, wave_loss
from wavegpt.training.optimizer import build_optimizer
from wavegpt.training.quality import TextQuality, decile_of
from wavegpt.training.references import by_frequency, references

Batch = dict[str, Any]


class WaveLM(pl.LightningModule):
    """A language model of waves, or a control of it, trained whole.

    Vocabulary, context and the tokens' ranks are the DataModule's. What `WaveConfig` says of arguments holds here.

    Args:
        d_model: width of the residual stream.
        layers: blocks.
        heads: attention heads of a block.
        dropout: of the output of both halves of a block.
        norm: ``layer`` (with a bias) or ``rms``.
        embedding: of tokens: waves, a table, or a factorised table.
        attention: interference, or one of its controls.
        mlp: the block's second half.
        residual_scale: initial output projections are scaled by 1/√(2 layers).
        double_ln: a second norm before the head (the source).
        head_bias: of the head (the source).
        tie_head: the head is the embedding's table.
        loss: what is added to the cross-entropy.
        optimizer: AdamW, Muon or SGD, and whether gradients are projected.
        schedule: of the learning rates: ``cosine`` or ``constant``, after the warm-up.
        warmup_steps: over which the rates rise.
        final_lr: share of the rates that a cosine ends at.
        writing: how ``predict`` continues a prompt.
        compile: compile training passes: true, or ``reduce-overhead``, which also records CUDA graphs.
        seed: of the initialisation.

    Raises:
        ValueError: an argument out of its range, or a combination that cannot be built, by its key.
    """

    artefact = "wavegpt"  # the folder that `save_artefact` writes, in a run's
    writes = "type the beginning of a text"  # what a person at a terminal is asked for

    @checked
    def __init__(
        self,
        d_model: PositiveInt = 384,
        layers: PositiveInt = 8,
        heads: PositiveInt = 8,
        dropout: HalfOpenUnitInterval = 0.0,
        norm: Literal["layer", "rms"] = "layer",
        embedding: EmbeddingConfig = EmbeddingConfig(),  # noqa: B008  # frozen
        attention: AttentionConfig = AttentionConfig(),  # noqa: B008
        mlp: MlpConfig = MlpConfig(),  # noqa: B008
        residual_scale: bool = True,
        double_ln: bool = False,
        head_bias: bool = False,
        tie_head: bool = False,
        loss: LossConfig = LossConfig(),  # noqa: B008
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008
        schedule: Literal["cosine", "constant"] = "cosine",
        warmup_steps: NonNegativeInt = 100,
        final_lr: Share = 0.1,
        writing: WritingConfig = WritingConfig(),  # noqa: B008
        compile: Compile = False,
        seed: Seed = 42,
    ) -> None:
        super().__init__()
        try:
            self.config = WaveConfig(
                d_model=d_model, layers=layers, heads=heads, dropout=dropout, norm=norm, embedding=embedding,
                attention=attention, mlp=mlp, residual_scale=residual_scale, double_ln=double_ln, head_bias=head_bias,
                tie_head=tie_head, loss=loss, optimizer=optimizer,
            )  # fmt: skip
        except ValueError as error:
            raise ValueError(f"model.{error}") from error
        self.schedule, self.warmup_steps, self.final_lr = schedule, warmup_steps, final_lr
        self.writing, self.compiled, self.seed = writing, compile, seed
        self.model: WaveGPT | None = None
        self._compiled_pass: Callable[..., Tensor] | None = None
        anneal = self.config.embedding.anneal
        self._anneals = bool(anneal.steps)
        self.quality = TextQuality(self._anneals)
        self._step = 0  # of the checkpoint that was loaded
        self._speed = _Speed()
        self._facts: dict[str, Any] = {}

    def configure_model(self) -> None:
        """Build the model for the data's vocabulary and context.

        Raises:
            ValueError: the data is no text in windows.
        """
        if self.model is not None:
            return
        data = self._data
        tokenizer: Any = getattr(data, "tokenizer", None)
        if not hasattr(tokenizer, "ranks") or not hasattr(data, "context"):
            raise ValueError(
                f"data: WaveLM reads the windows of a TextDataModule, and the run has {type(data).__name__}"
            )
        self.config = self.config_for(tokenizer.vocab_size, data.context)
        ranks = torch.from_numpy(tokenizer.ranks)
        self.quality = TextQuality(self._anneals, ranks, data.context)
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):  # the same weights wherever it trains
            torch.manual_seed(self.seed)
            self.model = WaveGPT(self.config, ranks)
        if self.trainer.state.fn == TrainerFn.FITTING:
            if self.compiled:
                self._compiled_pass = compiled(self.model, self.compiled)
            self._facts["flops_per_token"] = flops_per_token(self.model, self.config.context)

    def config_for(self, vocab_size: int, context: int) -> WaveConfig:
        """The arm for a vocabulary and a context."""
        return WaveConfig(**{**vars(self.config), "vocab_size": vocab_size, "context": context})

    @property
    def _data(self) -> Any:
        return getattr(self.trainer, "datamodule", None)

    @property
    def ratio(self) -> float:
        """r of the annealing at this step; in an evaluation at the checkpoint's."""
        return self.config.embedding.anneal.ratio(max(self.global_step, self._step))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """An evaluation counts no steps of its own."""
        self._step = int(checkpoint["global_step"])

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (B, T, V) of token ids (B, T), at the annealing's end."""
        assert self.model is not None
        return self.model(ids)

    # Training

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean over predicted tokens; under several processes this one's part of it, whose mean is the whole's."""
        assert self.model is not None
        ratio, weights = self.ratio, self.config.loss
        observed = Observed() if weights.phase or weights.energy or weights.harmonic else None
        logits = self._train_pass(batch["input_ids"], ratio, observed)
        labels = batch["labels"]
        several = "weight" in batch
        if several and not bool((labels != IGNORED).any()):  # of a batch that does not go round
            terms = {"total": 0 * logits.sum()}
        else:
            terms = wave_loss(logits, labels, weights, observed)
        if several:  # the mean over its own tokens, times its share of all
            share = batch["weight"] * (labels != IGNORED).sum()
            terms = {name: share * value for name, value in terms.items()}
        loss = terms["total"]
        self.log("train/loss", loss, sync_dist=several)
        if observed is not None:
            for name, value in terms.items():
                if name != "total":
                    self.log(f"train/{'task' if name == 'ce' else name}", value, sync_dist=several)
        if self._anneals:
            self.log("anneal/ratio", torch.tensor(ratio), sync_dist=False)
        # NaN if it is not finite: an infinite loss can have a finite gradient, and a NaN reaches every process.
        return loss * batch.get("factor", 1.0) * (1 + 0 * loss.detach())

    def _train_pass(self, ids: Tensor, ratio: float, observed: Observed | None) -> Tensor:
        """Logits, by the compiled model where there is one."""
        assert self.model is not None
        if self._compiled_pass is None:
            return self.model(ids, ratio=ratio, observed=observed)
        # As a number each step's ratio would be a graph of its own.
        changing = torch.tensor(ratio, device=ids.device) if self._anneals else None
        return self._compiled_pass(ids=ids, ratio=changing, observed=observed)

    def configure_optimizers(self) -> Any:
        assert self.model is not None
        optimizer = build_optimizer(self.model)
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # so that fp16's gradients can be clipped
        total = max(int(min(self.trainer.estimated_stepping_batches, 2**62)), 1)

        def rate(step: int) -> float:
            rising = min(1.0, (step + 1) / (self.warmup_steps + 1))
            return rising * (self.final_lr + (1 - self.final_lr) * factor_at(self.schedule, step, total))

        self._group_settings = group_settings(optimizer)
        scheduler = LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """A resumed run takes its rates and weight decay from the configuration, not from the checkpoint."""
        override_groups(self.trainer.optimizers[0], cast(LambdaLR, self.lr_schedulers()), self._group_settings)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self._speed.begin()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self._speed.add(batch["input_ids"].numel() * self.trainer.world_size)

    # Evaluation

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        assert self.model is not None
        labels = batch["labels"]
        ratios = [self.ratio, self.config.embedding.anneal.end] if self._anneals else [None]
        nats = [_nats(self.model(batch["input_ids"], ratio=ratio), labels) for ratio in ratios]
        self.quality.update(torch.stack(nats), labels, batch["bytes"])

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def on_validation_start(self) -> None:
        self._speed.pause()
        self._look_at("val")

    def on_test_start(self) -> None:
        self._look_at("test")

    def on_validation_epoch_end(self) -> None:
        log_quality(self, "val", "bits_per_byte")

    def on_test_epoch_end(self) -> None:
        log_quality(self, "test", "bits_per_byte")

    # Text

    def predict_step(self, batch: Batch, batch_idx: int) -> list[tuple[str, Iterator[str]]]:
        """Each prompt and the text that continues it, piece by piece as it is read."""
        return [(prompt, self.write(prompt, batch_idx)) for prompt in batch["prompts"]]

    def write(self, prompt: str, number: int = 0) -> Iterator[str]:
        """Pieces of text that continue a prompt, which begins a document.

        Args:
            number: of the prompt; it is added to the seed, so that each prompt has its own draws.
        """
        assert self.model is not None
        tokenizer, how = self._data.tokenizer, self.writing
        sampling = replace(how, seed=(how.seed + number) % 2**63)
        ids = [tokenizer.end, *map(int, tokenizer.encode(prompt))]
        tokens = generate(self.model, [ids], how.max_new_tokens, sampling, stop=(tokenizer.end,))
        return stream_text((int(token) for token in tokens), tokenizer.decode, how.stop or (), (tokenizer.end,))

    # What is kept and said

    def save_artefact(self, folder: Path) -> None:
        """Write the model as a folder that `wavegpt.load` reads, with its tokenizer's files and their ranks."""
        assert self.model is not None
        save(self.model, folder, self._data.tokenizer.end)
        self._data.tokenizer.save(folder)

    def on_fit_start(self) -> None:
        if self.trainer.is_global_zero and self.config.remarks:
            print("\n".join(f"model.{remark}" for remark in self.config.remarks), flush=True)
        self._speed = _Speed()
        self._look_at("val")

    def _look_at(self, part: str) -> None:
        """Note what the text of a part costs without a model."""
        data = self._data
        if not self.trainer.is_global_zero or "references" in self._facts:
            return
        tokens, tokenizer = data.shards.tokens(part)[1:], data.tokenizer
        text = tokenizer.decode_bytes(tokens)
        self._facts["references"] = dict(references(tokens, tokenizer.byte_lengths, tokenizer.frequencies, text))
        decile = decile_of(torch.from_numpy(tokenizer.ranks)).numpy()
        self._facts["by_frequency"] = dict(by_frequency(tokens, decile, tokenizer.frequencies))

    def describe(self) -> dict[str, Any]:
        """Facts about the model, for the report."""
        about: dict[str, Any] = {"class": type(self).__name__, **_chosen(self.config)}
        if self.model is not None:
            about["parameters"] = dict(self.model.parameter_counts())
        about |= {"schedule": self.schedule, "warmup_steps": self.warmup_steps, "final_lr": self.final_lr}
        about |= {"seed": self.seed, **self._facts}
        if (speed := self._speed.per_second) is not None:
            about["tokens_per_second"] = round(speed)
        return about


def _chosen(section: Any) -> dict[str, Any]:
    """What a configuration says, of its sections the kind and what is not the default."""
    found: dict[str, Any] = {}
    for field in fields(section):
        value = getattr(section, field.name)
        if is_dataclass(value):
            if chosen := _chosen(value):
                found[field.name] = chosen
        elif field.name in ("kind", "base") or isinstance(section, WaveConfig) or value != field.default:
            found[field.name] = value
    return found


class _Speed:
    """Tokens a second of training, without what is done between: evaluations."""

    def __init__(self) -> None:
        self._tokens, self._seconds = 0, 0.0
        self._since: float | None = None

    def begin(self) -> None:
        """Of a batch; what passed since the last one's end counts too, unless there was a pause."""
        if self._since is None:
            self._since = time.monotonic()

    def add(self, tokens: int) -> None:
        """A batch is done."""
        now = time.monotonic()
        self._seconds += now - (self._since or now)
        self._since = now
        self._tokens += tokens

    def pause(self) -> None:
        """Something else begins."""
        self._since = None

    @property
    def per_second(self) -> float | None:
        """The mean so far."""
        return self._tokens / self._seconds if self._seconds else None


def _nats(logits: Tensor, labels: Tensor) -> Tensor:
    """−ln p of each predicted token, (B, T), and 0 where nothing is predicted."""
    flat = labels.flatten()
    nats = F.cross_entropy(logits.flatten(0, 1).float(), flat, ignore_index=IGNORED, reduction="none")
    return nats.view_as(labels)
