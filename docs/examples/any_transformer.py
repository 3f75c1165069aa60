import sys

import torch

from modulant.backbones import open_model
from modulators import FieldModulator, attach

backbone = open_model(sys.argv[1])  # a folder, or a hub id such as sentence-transformers/all-MiniLM-L6-v2
batch = backbone.tokenizer(["a young dog", "a financial institution"], padding=True, return_tensors="pt")

torch.manual_seed(0)  # the field starts with random weights
handle = attach(backbone.model, FieldModulator(backbone.stream, initial_alpha=0.1))
modulated = backbone.encode(batch.input_ids, batch.attention_mask)
with handle.disabled():
    original = backbone.encode(batch.input_ids, batch.attention_mask)  # the model's own, to the bit

moved = (modulated - original).norm(dim=-1) / original.norm(dim=-1)
print(f"{backbone.family.model_type}: {backbone.stream}, tokens moved by {moved.mean():.1%}")
