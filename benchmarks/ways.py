"""The ways to train that are compared: each is a step (forward, backward, AdamW) on a batch, and does equal work.

The frozen ways share one copy of the frozen weights; each has modules of its own, so that one's hooks and adapters are
not another's. Dropout is off in all of them, full fine-tuning too: its masks would be work that the others do not have.
"""

import copy
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from modulators import FieldModulator, LerpModulator, Modulator, ResidualStream, attach, stream_of

Batch = dict[str, Tensor]
Kind = Callable[..., Modulator]  # given a stream; further arguments by name

LR, WEIGHT_DECAY = 1e-4, 0.01  # of AdamW; small, so that losses stay finite however long is timed
MODULATORS: dict[str, Kind] = {"field": FieldModulator, "LERP": LerpModulator}
# Of the definitions' lengths in tokens, prefix and end included: a lognormal of mean 15.1, cut at 93.
_MEAN, _SPREAD, _LONGEST = 15.1, 0.45, 93


@dataclass
class Way:
    """A model and what of it trains.

    Attributes:
        model: a T5 with whatever is attached to it.
        trained: AdamW's groups, or parameters; empty: AdamW has nothing to do.
        backward: whether a gradient is asked for at all.
        base: inside it, the model is the base model.
        modulator: what is attached, where that is a modulator.
        call: what runs instead of the model itself, such as the model compiled.
        autocast: the precision of products, if not the weights' own.
    """

    model: Any
    trained: Sequence[Any] = ()
    backward: bool = True
    base: Callable[[], AbstractContextManager[None]] = nullcontext
    modulator: Modulator | None = None
    call: Callable[..., Any] | None = None
    autocast: torch.dtype | None = None
    optimizer: torch.optim.Optimizer | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.trained:
            self.optimizer = torch.optim.AdamW(list(self.trained), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)

    def loss(self, batch: Batch) -> Tensor:
        """The mean over target tokens, nats."""
        ids = batch["input_ids"]
        with torch.autocast(ids.device.type, self.autocast, enabled=self.autocast is not None):
            out = (self.call or self.model)(
                input_ids=ids, attention_mask=batch["attention_mask"], labels=batch["labels"], use_cache=False
            )
        return out.loss

    def step(self, batch: Batch) -> Tensor:
        """One step of training; of a way without a backward pass, its forward pass."""
        if not self.backward:
            with torch.no_grad():
                return self.loss(batch)
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch)
        loss.backward()
        if self.optimizer is not None:
            self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def base_loss(self, batch: Batch) -> float:
        """The loss while what is attached is off."""
        with self.base():
            return float(self.loss(batch))


class Through(Modulator):
    """The floor that a modulator's cost is measured from: the same path for gradients, and no arithmetic.

    The stream asks for a gradient from the lowest modulated block on, so the backward pass goes as far down as it does
    for any modulator there. It has no parameters, so AdamW has nothing to do.
    """

    def __init__(self, stream: ResidualStream) -> None:
        super().__init__(stream, {})
        self._register_alpha_logits(torch.zeros(stream.n_layers, 1), learnable=False)

    def _modulate(self, residual: Tensor, alpha: Tensor, layer: int, context: Any) -> Tensor:
        return residual if residual.requires_grad else residual.detach().requires_grad_()

    @property
    def alphas(self) -> Tensor:
        return self.alpha_logits

    @property
    def expert_names(self) -> tuple[str, ...]:
        return ("nothing",)

    @property
    def active_dims(self) -> Tensor:
        return torch.arange(0)

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        return []


def sharing(model: Any) -> Any:
    """Modules of its own around the same weights."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]})


def forward_only(model: Any) -> Way:
    return Way(sharing(model), backward=False)


def modulated(model: Any, kind: Kind, layers: Sequence[int] | None = None, **arguments: Any) -> Way:
    """The frozen model with a modulator at these blocks, all of them if None."""
    own = sharing(model)
    device = next(own.parameters()).device
    modulator = kind(stream_of(own.config), **arguments).to(device)
    handle = attach(own, modulator, layers)
    return Way(own, modulator.parameter_groups(LR, WEIGHT_DECAY), base=handle.disabled, modulator=modulator)


def fine_tuned(model: Any) -> Way:
    """Weights of its own, all of which train, the embeddings too."""
    own = copy.deepcopy(model).requires_grad_(True)
    return Way(own, list(own.parameters()))


def lora(model: Any, n_parameters: int) -> Way:
    """LoRA in the encoder with about as many parameters, planned as `modulators.AdaptedT5` does."""
    from modulators import AdaptedT5

    with _folder(model) as folder:
        module = AdaptedT5("lora", n_parameters, backbone=folder)
    own = sharing(model)
    module.take(own)
    assert module.handle is not None
    return Way(own, [p for p in own.parameters() if p.requires_grad], base=module.handle.disabled)


def modulated_module(model: Any, kind: Kind) -> Any:
    """The LightningModule as it trains, around this backbone."""
    from modulators import ModulatedT5

    with _folder(model) as folder:
        module = ModulatedT5(kind, backbone=folder)
    module.take(sharing(model))
    return module.to(next(model.parameters()).device)


@contextmanager
def _folder(model: Any) -> Iterator[str]:
    """A backbone's folder, of which a module reads the configuration alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(model.config.to_dict()))
        yield folder


def n_trained(way: Way) -> int:
    """How many numbers a way's optimizer changes."""
    assert way.optimizer is not None
    return sum(p.numel() for group in way.optimizer.param_groups for p in group["params"])


def gflop(way: Way, batch: Batch) -> float:
    """10⁹ floating-point operations of a step's matrix products, forward and backward, an addition counted as one.

    Attention is counted as the products that it is made of: the counter knows no fused kernel of a CPU.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        way.step(batch)
    return counter.get_total_flops() / 1e9


def wordnet_batches(n: int, batch_size: int = 32, matching: Literal["single_token", "all"] = "single_token") -> Any:
    """The first batches of an epoch of real definitions, by the DataModule that training uses, and itself."""
    from datamodules import WordNetDataModule

    data = WordNetDataModule(batch_size=batch_size, matching=matching)
    data.setup()
    batches = []
    for batch in data.train_dataloader():
        batches.append({key: batch[key] for key in ("input_ids", "attention_mask", "labels")})
        if len(batches) == n:
            break
    return batches, data


def drawn_lengths(n: int, seed: int = 0) -> list[int]:
    """Source lengths like the definitions', for where there is no WordNet: mean about 15.1 tokens, at most 93."""
    rng = np.random.default_rng(seed)
    drawn = rng.lognormal(np.log(_MEAN) - _SPREAD**2 / 2, _SPREAD, n)
    return [int(length) for length in np.clip(drawn.round(), 5, _LONGEST)]


def drawn_batch(vocab_size: int, lengths: Sequence[int], seed: int = 0, device: str = "cpu") -> Batch:
    """Random tokens of those lengths, padded to the longest; the target is a token and the end, as of a lemma."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    ids = torch.randint(2, vocab_size, (len(lengths), longest), generator=generator)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    labels = torch.randint(2, vocab_size, (len(lengths), 2), generator=generator)
    labels[:, 1] = 1
    batch = {"input_ids": ids.where(mask, 0), "attention_mask": mask.long(), "labels": labels}
    return {key: value.to(device) for key, value in batch.items()}
