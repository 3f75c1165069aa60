"""What a modulator costs a SentenceTransformer: its `encode` with one attached, against the base's.

All of encode is timed: sorting, tokenising, the forward pass, pooling and NumPy. The ways share the frozen weights and
take turns in one process on the same texts; ratios are within a turn.
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from benchmarks.harness import Row, interleaved, milliseconds, ratio
from benchmarks.steps.attached import KINDS, TURNS
from benchmarks.ways import sharing
from modulant.assets import MINILM, resolve_backbone
from modulant.lexicon import Lexicon
from modulators import attach_pretrained, save_modulator, stream_of

ABOUT = """\
`SentenceTransformer.encode` of all-MiniLM-L6-v2 with an artefact attached by `attach_pretrained`.

- **Setup.** 256 of WordNet's definitions, in batches of 64; the modulator as initialised.
- **Clock.** The process's own CPU time.
- **Parity.** With the modulator disabled the embeddings are the base's, to the bit."""

ASKED = {"LERP": 1.03, "field, gate: centred": 1.05, "field, gate: source": 1.05, "disabled": 1.01}
BATCH = 64


def run(quick: bool = False) -> list[Row]:
    """Rows of the table; `ratio` is ours / the base's."""
    from sentence_transformers import SentenceTransformer

    definitions = Lexicon.load().definitions
    drawn = np.random.default_rng(0).choice(len(definitions), 8 if quick else 4 * BATCH, replace=False)
    texts = [definitions[int(i)] for i in drawn]
    folder = resolve_backbone(MINILM)
    base = SentenceTransformer(folder, device="cpu")
    stream = stream_of(base.config)
    models, handles = {"base": base}, {}
    for name, kind in KINDS.items():
        models[name] = sharing(base)
        with tempfile.TemporaryDirectory() as artefact:
            save_modulator(kind(stream), artefact, folder, list(range(stream.n_layers)), family="bert")
            handles[name] = attach_pretrained(models[name], artefact)

    def encoding(model: Any, context: Callable[[], AbstractContextManager[None]] = nullcontext) -> Callable[[], Any]:
        def once() -> Any:
            with context():
                return model.encode(texts, batch_size=BATCH, show_progress_bar=False)

        return once

    ways = {name: encoding(model) for name, model in models.items()}
    ways["disabled"] = encoding(models["LERP"], handles["LERP"].disabled)
    plain = ways["base"]()
    equal = {name: np.array_equal(encoding(models[name], handle.disabled)(), plain) for name, handle in handles.items()}
    seconds = interleaved(ways, 3 if quick else TURNS, 1, clock=time.process_time)
    return [
        {
            "what": name,
            "ours": milliseconds(seconds[name]),
            "plain": milliseconds(seconds["base"]),
            "ratio": str(ratio(seconds[name], seconds["base"])),
            "asked": f"<= {asked}",
            "parity": "equal" if equal.get(name, equal["LERP"]) else "differ",
        }
        for name, asked in ASKED.items()
    ]
