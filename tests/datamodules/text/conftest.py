"""A small corpus of many documents, and DataModules over it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datamodules import TextDataModule

WORDS = "the a of wave phase naïve Ω stone reads, sings; 雪 under over between light 1984 don't \t\t x".split(" ")


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """300 distinct documents of one to forty words."""
    rng = np.random.default_rng(3)
    drawn = [" ".join(rng.choice(WORDS, rng.integers(1, 40))).strip() for _ in range(400)]
    return list(dict.fromkeys(f"{i} {text}" for i, text in enumerate(drawn[:300])))


@pytest.fixture(scope="session")
def file(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, as paragraphs of a text file."""
    file = tmp_path_factory.mktemp("text") / "corpus.txt"
    file.write_text("\n\n".join(texts), encoding="utf-8")
    return file


Make = Callable[..., TextDataModule]


@pytest.fixture(scope="session")
def make(file: Path) -> Make:
    """A DataModule over the file, set up: 16 predictions a window, 4 windows a batch."""

    def data(**changed: object) -> TextDataModule:
        arguments = {
            "corpus": str(file),
            "tokenizer": "bpe",
            "vocab_size": 300,
            "context": 16,
            "batch_tokens": 64,
            "val_fraction": 0.15,
            "test_fraction": 0.1,
        }
        found = TextDataModule(**{**arguments, **changed})  # type: ignore[arg-type]
        found.setup()
        return found

    return data
