"""A small WordNet, a tokenizer and a tiny frozen T5 with random weights: enough to train on in a second."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from assets import MINI
from lexicon import Lexicon
from tests.wordnets import excerpt, write_zip


@pytest.fixture(scope="session")
def lexicon() -> Lexicon:
    return Lexicon.load()


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MINI)


@pytest.fixture(scope="session")
def small_wordnet(lexicon: Lexicon, tmp_path_factory: pytest.TempPathFactory) -> str:
    """1,500 of WordNet's synsets, as a user's own archive."""
    rows = np.sort(np.random.default_rng(0).choice(len(lexicon), 1500, replace=False))
    return str(write_zip(excerpt(lexicon, rows.tolist()), tmp_path_factory.mktemp("wordnet") / "wordnet.zip"))


@pytest.fixture(scope="session")
def tiny_backbone(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=16,
        d_kv=4,
        d_ff=16,
        num_heads=4,
        num_layers=2,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
