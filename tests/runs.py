"""What tests of whole runs share: a small WordNet, a tiny backbone, and the command line called as a user would."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from modulant.assets import MINI
from tests.wordnets import Synset, write_zip

ROOT = Path(__file__).parents[1]
ENTRIES = 200


# Overlays on a configuration: the lemma's loss alone, with many small batches an epoch; and the source's field on it.
LEMMA = ("--config", "lemma.yaml")
SOURCE = (*LEMMA, "--config", "controls/gate_source.yaml")


def small_wordnet(folder: Path, entries: int = ENTRIES) -> Path:
    """A folder for ``data.nltk_data``: nouns that `mini`'s tokenizer knows as one token, in a random tree.

    Each definition is a seeded draw of such words, so it is real tokens and no English.
    """
    vocabulary = AutoTokenizer.from_pretrained(MINI).get_vocab()
    pieces = [piece[1:] for piece, _ in sorted(vocabulary.items(), key=lambda item: item[1]) if piece[0] == "▁"]
    words = [word for word in pieces if word.isascii() and word.isalpha() and word.islower() and len(word) > 3]
    rng = np.random.default_rng(5)
    synsets = [
        Synset(
            # beyond the entries, lemmas of two words: synsets that no entry uses, for pre-training
            lemmas=(words[i] if i < entries else f"{words[i]} {words[0]}",),
            gloss=" ".join(rng.choice(words, int(rng.integers(3, 14)))),
            hypernyms=() if i == 0 else (int(rng.integers(max(0, i // 3), i)),),
        )
        for i in range(entries + entries // 4)
    ]
    write_zip(synsets, folder / "corpora" / "wordnet.zip")
    return folder


def tiny_backbone(folder: Path) -> str:
    """A T5 with seeded random weights and `mini`'s vocabulary, in the hub's layout: trains in a second."""
    tokenizer = AutoTokenizer.from_pretrained(MINI)
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


def process(*argv: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python train.py …` in a process of its own."""
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *argv],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@functools.cache
def main() -> Any:
    """`train.main`, imported when first needed."""
    import train

    return train.main
