"""all-MiniLM-L6-v2, a real sentence encoder: read as sentence-transformers does; a modulator that is off is none."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from modulant.assets import resolve_backbone
from modulant.backbones import open_model
from modulant.backbones.opening import Backbone
from modulant.geometry import masked_mean
from modulant.storage import sha256_of
from modulators import FieldModulator, LerpModulator, attach

pytestmark = pytest.mark.weights

NAME = "all-MiniLM-L6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of model.safetensors, as on the hub
PAIRS = [
    ("A man is eating food.", "A person is having a meal."),
    ("The stock market fell sharply today.", "Shares dropped steeply this afternoon."),
    ("How do I reset my password?", "What should I do if I forgot my login credentials?"),
    ("A young dog runs through the grass.", "A puppy is playing in a meadow."),
]


@pytest.fixture(scope="module")
def opened() -> Backbone:
    return open_model(NAME)


@torch.no_grad()
def embedded(opened: Backbone, texts: list[str]) -> Tensor:
    """Unit vectors: means over all tokens, as the model's card says."""
    batch = opened.tokenizer(texts, padding=True, return_tensors="pt")
    return F.normalize(masked_mean(opened.encode(batch.input_ids, batch.attention_mask), batch.attention_mask), dim=1)


def test_it_embeds_what_sentence_transformers_does(opened: Backbone) -> None:
    from sentence_transformers import SentenceTransformer  # seconds, which tests that are skipped need not spend

    folder = Path(resolve_backbone(NAME))
    assert sha256_of(folder / "model.safetensors") == SHA256
    texts = [text for pair in PAIRS for text in pair]
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts, convert_to_tensor=True)
    torch.testing.assert_close(embedded(opened, texts), expected, rtol=0, atol=1e-6)


def test_paraphrases_are_nearer_than_anything_else(opened: Backbone) -> None:
    one, other = (embedded(opened, [pair[side] for pair in PAIRS]) for side in (0, 1))
    cosines = one @ other.T
    own = cosines.diagonal()
    assert float(own.min()) > 0.4
    assert float((cosines - own.diag()).max()) < 0.2


def test_off_it_is_the_base_to_the_bit(opened: Backbone) -> None:
    texts = [text for pair in PAIRS for text in pair]
    base = embedded(opened, texts)
    identity = attach(opened.model, FieldModulator(opened.stream, gate="centred"))
    assert torch.equal(embedded(opened, texts), base)
    identity.remove()
    for kind in (FieldModulator, LerpModulator):
        handle = attach(opened.model, kind(opened.stream, initial_alpha=0.1))
        assert float((embedded(opened, texts) * base).sum(1).max()) < 0.9999
        with handle.disabled():
            assert torch.equal(embedded(opened, texts), base)
        handle.remove()
        assert torch.equal(embedded(opened, texts), base)
