"""Train a small T5 from scratch: how `mini`, the bundled backbone, was made.

T5 from scratch is sensitive to its optimizer: embeddings start at RMS 1 and other matrices near 0.1 or less, so one
rate for all of them collapses the encoder. Adafactor with rates relative to each matrix's own RMS does not.
"""

import json
from pathlib import Path
from typing import Any, Literal, cast

import lightning.pytorch as pl
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoModelForSeq2SeqLM, T5Config

from modulant.backbones.families import stream_of
from modulant.backbones.loading import RandomEncoder
from modulant.backbones.stream import ResidualStream
from modulant.backbones.t5 import encode
from modulant.schedule import cosine, group_settings, override_groups
from modulant.settings import PositiveFloat, PositiveInt, Seed, checked
from modulant.storage import storing, write_whole
from modulators.arguments import check_steps


class PretrainT5(pl.LightningModule):
    """A T5 of given sizes, trained whole; its vocabulary is the DataModule's tokenizer's.

    Args:
        d_model: width of the residual stream.
        d_kv: width of an attention head.
        d_ff: width of the feed-forward layers.
        num_heads: attention heads.
        num_layers: encoder blocks: what modulators are attached to.
        num_decoder_layers: decoder blocks.
        feed_forward: ``relu`` (T5 v1.0) or ``gated-gelu`` (v1.1).
        lr: Adafactor's highest rate, relative to the RMS of each parameter.
        warmup_steps: over which the rate rises; then it falls as a cosine. It ends at a twentieth.
        seed: of the initialisation.
    """

    modulator = None  # nothing is attached here, and there is no base to compare with
    handle = None

    @checked
    def __init__(
        self,
        d_model: PositiveInt = 128,
        d_kv: PositiveInt = 32,
        d_ff: PositiveInt = 512,
        num_heads: PositiveInt = 4,
        num_layers: PositiveInt = 6,
        num_decoder_layers: PositiveInt = 2,
        feed_forward: Literal["relu", "gated-gelu"] = "relu",
        lr: PositiveFloat = 1.5e-2,
        warmup_steps: PositiveInt = 100,
        seed: Seed = 42,
    ) -> None:
        super().__init__()
        sizes = {
            "d_model": d_model,
            "d_kv": d_kv,
            "d_ff": d_ff,
            "num_heads": num_heads,
            "num_layers": num_layers,
            "num_decoder_layers": num_decoder_layers,
        }
        self.save_hyperparameters()
        self.sizes, self.feed_forward, self.lr, self.warmup_steps, self.seed = (
            sizes,
            feed_forward,
            lr,
            warmup_steps,
            seed,
        )
        self.model: Any = None

    def configure_model(self) -> None:
        if self.model is not None:
            return
        tokenizer = self.trainer.datamodule.tokenizer  # type: ignore[attr-defined]
        config = T5Config(
            **self.sizes,
            vocab_size=len(tokenizer),
            feed_forward_proj=self.feed_forward,
            dropout_rate=0.0,
            tie_word_embeddings=True,
            decoder_start_token_id=tokenizer.pad_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.model = AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=False)

    @property
    def stream(self) -> ResidualStream:
        return stream_of(self.model.config)

    @property
    def layers(self) -> list[int]:
        return []

    @property
    def active_dims(self) -> Tensor:
        return torch.arange(self.stream.d_model, device=self.device)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The encoder's last hidden state, (B, S, D)."""
        return encode(self.model, input_ids, attention_mask)

    def static_embed(self, input_ids: Tensor) -> Tensor:
        """The input embeddings, (B, S, D)."""
        return self.model.shared(input_ids)

    def random_encoder(self) -> RandomEncoder:
        return RandomEncoder(self.model.config, self.seed + 1)

    def describe(self) -> dict[str, Any]:
        """What the report says of the model."""
        return {"class": type(self).__name__, **{key: value for key, value in self.hparams.items()}}

    def _loss(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """(mean cross-entropy in nats, number of target tokens); of a batch with a weight, that times the sum.

        The vocabulary is scored at real targets only: most of a padded batch of targets is none, and the scores are
        the largest tensor of the step.
        """
        labels, mask = batch["labels"], batch["attention_mask"]
        hidden = self.encode(batch["input_ids"], mask)
        decoded = self.model.decoder(
            input_ids=self.model.prepare_decoder_input_ids_from_labels(labels=labels),
            encoder_hidden_states=hidden,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        real = labels != -100
        # Tied embeddings score a stream scaled by 1/sqrt(d_model), as T5 v1.0 does.
        scores = self.model.lm_head(decoded[real] * self.model.config.d_model**-0.5)
        if "weight" in batch:
            return batch["weight"] * F.cross_entropy(scores.float(), labels[real], reduction="sum"), real.sum()
        return F.cross_entropy(scores.float(), labels[real]), real.sum()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The mean over target tokens; under several processes, this one's part of it, as in `FrozenModel`."""
        loss, _ = self._loss(batch)
        self.log("train/loss", loss, sync_dist="weight" in batch)
        return loss * batch.get("factor", 1.0) * (1 + 0 * loss.detach())  # NaN if it is not finite, see FrozenModel

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        loss, count = self._loss(batch)
        name = "val/loss" if dataloader_idx == 1 else "val/span_loss"  # the task's own loss goes by the task's own key
        self.log(
            name, loss, batch_size=int(count), add_dataloader_idx=False, sync_dist=True, prog_bar=dataloader_idx == 1
        )

    def configure_optimizers(self) -> Any:
        from transformers.optimization import Adafactor  # brings the Trainer, and with it peft: half a second

        optimizer = Adafactor(
            self.parameters(), lr=self.lr, scale_parameter=True, relative_step=False, warmup_init=False
        )
        steps = self.trainer.estimated_stepping_batches
        check_steps("cosine", steps)
        total = int(steps)

        def rate(step: int) -> float:
            warm = min(1.0, (step + 1) / self.warmup_steps)
            return warm * (0.05 + 0.95 * cosine(step, total))

        self._group_settings = group_settings(optimizer)
        scheduler = LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """The rate of a resumed run is the one asked for now, not the checkpoint's."""
        override_groups(self.trainer.optimizers[0], cast(LambdaLR, self.lr_schedulers()), self._group_settings)

    def on_fit_end(self) -> None:
        """Leave the backbone in the run folder, in Hugging Face's layout."""
        if self.trainer.is_global_zero:
            export(self.model, self.trainer.datamodule.tokenizer, Path(self.trainer.default_root_dir) / "backbone")  # type: ignore[attr-defined]


def export(model: Any, tokenizer: Any, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a T5 and its tokenizer as a folder that ``from_pretrained`` reads, weights in half precision."""
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    tied = {name for name, _ in model.named_parameters()}  # shared embeddings once
    tensors = {
        name: value.detach().to("cpu", dtype).contiguous() for name, value in model.state_dict().items() if name in tied
    }
    write_whole(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    config = {**model.config.to_diff_dict(), "architectures": [type(model).__name__], "dtype": "float16"}
    write_whole(folder / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    tokenizer.backend_tokenizer.no_truncation()  # a limit that some earlier call asked for is no part of the tokenizer
    with storing(folder / "tokenizer.json"):
        tokenizer.save_pretrained(folder)
