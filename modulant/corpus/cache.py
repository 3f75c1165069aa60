"""Cache of the tokenised WordNet: tokenising takes seconds at the start of every run.

A file's name is a digest of everything that its arrays depend on: WordNet's texts, the tokenizer's description, the
limits, the versions of the libraries. So no file is ever out of date, and none has to be deleted.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modulant.lexicon import Lexicon
from modulant.storage import cache_folder

_FORMAT = 1  # one more whenever the arrays, or the way they are made, change


def file_for(lexicon: Lexicon, tokenizer: Any, settings: Sequence[object]) -> Path | None:
    """The cache file of this tokenizer; None for one without a complete description (no fast tokenizer)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    import tokenizers

    described = json.loads(backend.to_str())
    for state in ("truncation", "padding"):  # of the last call
        described.pop(state, None)
    digest = hashlib.blake2b(digest_size=16)
    settled = [_FORMAT, tokenizers.__version__, type(tokenizer).__name__, *settings, described]
    digest.update(json.dumps(settled, sort_keys=True, default=str).encode())
    for array in (
        lexicon.definitions.buffer, lexicon.definitions.offsets, lexicon.lemmas.buffer, lexicon.lemmas.offsets,
        lexicon.lemma_starts,
    ):  # fmt: skip
        digest.update(np.ascontiguousarray(array).data)
    return cache_folder() / f"corpus-{digest.hexdigest()}.npz"
