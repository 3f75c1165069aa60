"""WordNet as one tokenizer sees it, kept on disk: to tokenise it takes seconds, and a run begins with it.

A file's name is a digest of everything that its arrays follow from: WordNet's texts, the tokenizer's own description,
the limits, the versions of the libraries. So nothing is ever out of date, and nothing has to be cleared.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modulant.lexicon import Lexicon
from modulant.storage import cache_folder

_FORMAT = 1  # one more whenever the arrays, or the way they are made, change

Arrays = Mapping[str, npt.NDArray[Any]]


def file_for(lexicon: Lexicon, tokenizer: Any, settings: Sequence[object]) -> Path | None:
    """Where the arrays of this tokenizer belong; None for one that cannot tell what it does (no fast tokenizer)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    import tokenizers

    described = json.loads(backend.to_str())
    for state in ("truncation", "padding"):  # of the last call
        described.pop(state, None)
    digest = hashlib.blake2b(digest_size=16)
    told = [_FORMAT, tokenizers.__version__, type(tokenizer).__name__, *settings, described]
    digest.update(json.dumps(told, sort_keys=True, default=str).encode())
    for array in (
        lexicon.definitions.buffer, lexicon.definitions.offsets, lexicon.lemmas.buffer, lexicon.lemmas.offsets,
        lexicon.lemma_starts,
    ):  # fmt: skip
        digest.update(np.ascontiguousarray(array).data)
    return cache_folder() / f"corpus-{digest.hexdigest()}.npz"


def read(file: Path, names: Sequence[str]) -> Arrays | None:
    """The arrays of these names; None if there are none that can be read whole (each has a checksum)."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except Exception:  # whatever a damaged file makes of NumPy and zipfile: it is tokenised again
        return None
