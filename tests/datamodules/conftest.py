"""A small WordNet, a tokenizer and a tiny frozen T5 with random weights: enough to train on in a second."""

from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from modulant.assets import MINI
from modulant.lexicon import Lexicon
from tests import runs
from tests.wordnets import excerpt, write_zip


@pytest.fixture(scope="session")
def lexicon() -> Lexicon:
    return Lexicon.load()


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MINI)


@pytest.fixture(scope="session")
def small_wordnet(lexicon: Lexicon, tmp_path_factory: pytest.TempPathFactory) -> str:
    """1,500 of WordNet's synsets, as a user-supplied archive."""
    rows = np.sort(np.random.default_rng(0).choice(len(lexicon), 1500, replace=False))
    return str(write_zip(excerpt(lexicon, rows.tolist()), tmp_path_factory.mktemp("wordnet") / "wordnet.zip"))


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return runs.tiny_backbone(tmp_path_factory.mktemp("backbone"))
