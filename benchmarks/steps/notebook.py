"""The plain loop that a notebook would write, to compare an epoch with: the same model, the same data, the same sums.

It tokenises in the loop, pads random batches to their longest, walks through the encoder's blocks by itself to put the
field before each, has a Linear layer for every expert's every purpose, takes volumes as determinants, and asks for the
loss as a number at each step. It freezes the backbone, as any such notebook does.
"""

import itertools
import math
import random
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutput

from benchmarks.ways import LR, WEIGHT_DECAY, Batch
from modulators import FieldModulator


class PlainField(nn.Module):
    """The field's formula, straight from its definition, with a given field's weights."""

    def __init__(self, field: FieldModulator) -> None:
        super().__init__()
        self.n_active, self.scale = field.n_active, field.deform_scale
        self.low, self.high = field.alpha_min, field.alpha_max
        self.logits = nn.Parameter(field.alpha_logits.detach().clone())
        self.templates, self.deform, self.norm, self.gate, self.validity = [], *(nn.ModuleList() for _ in range(4))
        state = field.state_dict()
        for name in field.expert_names:
            expert: Any = field.experts[name]
            self.templates.append(expert.template)
            self.deform.append(self._copy(state, f"experts.{name}.to_deform"))
            norm = nn.LayerNorm(expert.n_features)
            norm.load_state_dict({key: state[f"experts.{name}.norm.{key}"] for key in ("weight", "bias")})
            self.norm.append(norm)
            self.gate.append(self._copy(state, f"gate_projs.{name}"))
            self.validity.append(self._copy(state, f"experts.{name}.validity_proj"))

    @staticmethod
    def _copy(state: dict[str, Tensor], name: str) -> nn.Linear:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": weight, "bias": bias})
        return linear

    def forward(self, hidden: Tensor, layer: int) -> Tensor:
        active, rest = hidden[..., : self.n_active], hidden[..., self.n_active :]
        out = active
        alphas = self.low + (self.high - self.low) * torch.sigmoid(self.logits[layer])
        for i, template in enumerate(self.templates):
            vertices = template + self.scale * self.deform[i](active).view(*active.shape[:-1], *template.shape)
            features = self.norm[i](self._shape(vertices))
            gate = torch.sigmoid(self.gate[i](features))
            validity = torch.sigmoid(self.validity[i](features))
            out = out * ((1 - alphas[i]) + alphas[i] * gate * validity)
        return torch.cat([out, rest], dim=-1)

    @staticmethod
    def _shape(vertices: Tensor) -> Tensor:
        """Squared edge lengths, and the squared volume, (−1)^(k+1) det(Cayley–Menger) / (2^k k!²)."""
        k = vertices.shape[-2] - 1
        squared = (vertices[..., :, None, :] - vertices[..., None, :, :]).square().sum(-1)
        menger = torch.ones(*squared.shape[:-2], k + 2, k + 2)
        menger[..., 0, 0] = 0
        menger[..., 1:, 1:] = squared
        volume = (-1) ** (k + 1) / (2**k * math.factorial(k) ** 2) * torch.linalg.det(menger)
        first, second = torch.triu_indices(k + 1, k + 1, 1)
        return torch.cat([squared[..., first, second], volume[..., None]], dim=-1)


class Notebook:
    """A frozen T5, a field, AdamW, and the training pairs as text."""

    def __init__(self, model: Any, field: FieldModulator, data: Any) -> None:
        self.model, self.field, self.tokenizer = model, PlainField(field), data.tokenizer
        definitions, lemmas = data.entries.definitions, data.entries.lemmas
        self.pairs = [("summarize: " + definitions[row], lemmas[row]) for row in data.corpus.trained.tolist()]
        random.Random(0).shuffle(self.pairs)
        self.optimizer = torch.optim.AdamW(self.field.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)

    def batch(self, start: int, size: int) -> Batch:
        """Tokenised now, padded to the longest of them."""
        sources, targets = zip(*self.pairs[start : start + size], strict=True)
        inputs = self.tokenizer(list(sources), padding=True, truncation=True, max_length=128, return_tensors="pt")
        labels = self.tokenizer(list(targets), padding=True, truncation=True, max_length=16, return_tensors="pt")
        ids = labels["input_ids"].masked_fill(labels["attention_mask"] == 0, -100)
        return {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "labels": ids}

    def loss(self, batch: Batch) -> Tensor:
        encoder = self.model.encoder
        hidden = encoder.embed_tokens(batch["input_ids"])
        seen = create_bidirectional_mask(
            config=encoder.config, inputs_embeds=hidden, attention_mask=batch["attention_mask"]
        )
        bias = None
        for layer, block in enumerate(encoder.block):
            hidden, bias, *_ = block(self.field(hidden, layer), seen, bias)
        output = BaseModelOutput(encoder.final_layer_norm(hidden))
        return self.model(
            encoder_outputs=output, attention_mask=batch["attention_mask"], labels=batch["labels"], use_cache=False
        ).loss

    def train(self, n_batches: int, size: int) -> float:
        """The mean loss of so many batches."""
        total = 0.0
        for i in itertools.islice(range(0, len(self.pairs) - size + 1, size), n_batches):
            batch = self.batch(i, size)
            self.optimizer.zero_grad()
            loss = self.loss(batch)
            loss.backward()
            self.optimizer.step()
            total += loss.item()
        return total / n_batches
