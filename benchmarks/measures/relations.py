"""Path and Wu–Palmer similarity of all pairs of a population, against NLTK.

NLTK is timed on a seeded sample of pairs, ours on every pair of the population. In the same run at least 100,000 pairs
are asked of both, among them each synset of the population with each of its ancestors, and must be equal to the bit.
Memory is the peak of a process of its own.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Row
from modulant.backbones.tokenizers import load_tokenizer
from modulant.corpus.forms import encode_batch
from modulant.lexicon import Lexicon, Taxonomy, kept_entries
from modulant.lexicon.archive import Archive

SYNSETS = 8402  # as many as T5's own vocabulary matches
PAIRS = 6000  # that NLTK is timed on
PARITY = 100_000
SEED = 42
# All synsets read, and one similarity computed.
OURS = "from modulant.lexicon import Lexicon; print(Lexicon.load().taxonomy.wup_similarity(9, 7))"
NLTKS = "from modulant.lexicon.archive import Archive; s = list(Archive.find().reader().all_synsets()); "
NLTKS += "print(s[9].wup_similarity(s[7]))"
# Linux alone; getrusage would count the parent, which a child is until it executes.
PEAK = "; print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
ASKED = {"path": "≥ 30,000 ×", "wup": "≥ 4,000 ×"}

Ids = npt.NDArray[np.int64]
ABOUT = "Path and Wu–Palmer similarity of all pairs beside NLTK, and loading the lexicon."


def run(quick: bool = False) -> list[Row]:
    """The table's rows; ``quick`` asks for a tenth of everything."""
    synsets, nltk_pairs, parity = (n // 10 if quick else n for n in (SYNSETS, PAIRS, PARITY))
    Lexicon.load()  # compiled and cached, if it was not
    loads = [_seconds(Lexicon.load) for _ in range(5)]
    lexicon = Lexicon.load()
    population = _population(lexicon, synsets)
    print(f"NLTK reads {len(lexicon):,} synsets …", flush=True)
    start = time.perf_counter()
    plain: list[Any] = list(Archive.find().reader().all_synsets())
    rows = [_loading(loads, time.perf_counter() - start, lexicon, plain)]

    first = _seconds(lambda: lexicon.taxonomy.wup_similarity(population[0], population[1]))
    print(f"ancestors and ranks of all synsets, once a process: {first:.2f} s", flush=True)
    rng = np.random.default_rng(SEED)
    sample = rng.integers(len(population), size=(nltk_pairs, 2))
    wrong = _differing(lexicon.taxonomy, plain, population, parity, rng)
    whole: dict[str, Callable[[], npt.NDArray[Any]]] = {
        "path": lambda: lexicon.taxonomy.path_distances(population),
        "wup": lambda: lexicon.taxonomy.wup_matrix(population),
    }
    for kind, matrix in whole.items():
        theirs = [_pair_by_pair(kind, plain, population[part]) for part in np.array_split(sample, 3)]
        ours = [_seconds(matrix) / len(population) ** 2 for _ in range(4)][1:]  # the first may compile
        differing, compared = wrong[kind]
        rows.append(
            {
                "what": f"{kind}, all pairs of {len(population):,} synsets",
                "ours": _spread(ours, 1e9, "ns a pair"),
                "plain": _spread(theirs, 1e6, "µs a pair"),
                "ratio": f"{min(theirs) / min(ours):,.0f} ×",
                "asked": ASKED[kind],
                "parity": f"{differing:,} of {compared:,} pairs differ"
                if differing
                else f"equal on {compared:,} pairs",
            }
        )
    return [*rows, _memory()] if Path("/proc/self/status").is_file() else rows


def _memory() -> Row:
    (ours, same), (theirs, also) = (_peak(code) for code in (OURS, NLTKS))
    return {
        "what": "peak memory of a process with all synsets read and one similarity computed",
        "ours": f"{ours / 1e6:.0f} MB",
        "plain": f"{theirs / 1e6:.0f} MB",
        "ratio": f"{theirs / ours:.1f} ×",
        "parity": "equal similarity" if same == also else f"similarities differ: {same}, {also}",
    }


def _peak(code: str) -> tuple[int, str]:
    """Bytes, and the similarity."""
    found = subprocess.run([sys.executable, "-c", code + PEAK], check=True, capture_output=True, text=True)
    similarity, peak = found.stdout.split()
    return int(peak) * 1024, similarity


def _population(lexicon: Lexicon, size: int) -> Ids:
    """The first `SYNSETS`, in WordNet's order, with a lemma that is one token for mini, thinned to ``size``."""
    tokenizer = load_tokenizer("mini")
    kept = np.unique(kept_entries(lexicon, lambda texts: encode_batch(tokenizer, texts)).synset)
    population = kept[:SYNSETS]
    return population[np.arange(size) * len(population) // size]


def _loading(ours: list[float], theirs: float, lexicon: Lexicon, plain: list[Any]) -> Row:
    same = list(lexicon.names) == [synset.name() for synset in plain]
    same = same and list(lexicon.definitions) == [synset.definition() for synset in plain]
    return {
        "what": "lexicon, from its cache",
        "ours": _spread(ours, 1.0, "s", digits=3),
        "plain": f"{theirs:.1f} s",
        "ratio": f"{theirs / min(ours):,.0f} ×",
        "asked": "≤ 0.5 s",
        "parity": f"names and definitions {'equal' if same else 'differ'}",
    }


def _differing(
    taxonomy: Taxonomy, plain: list[Any], population: Ids, at_least: int, rng: np.random.Generator
) -> dict[str, tuple[int, int]]:
    """How many of NLTK's numbers are not ours, by kind, and of how many: every ancestor, then pairs at random.

    Pairs within the population are also read off the matrix.
    """
    climbs = [(int(i), taxonomy.index(up.name())) for i in population for up in plain[i].common_hypernyms(plain[i])]
    random = population[rng.integers(len(population), size=(max(at_least - len(climbs), at_least // 3), 2))]
    a, b = np.concatenate([np.array(climbs), random]).T
    print(f"parity: {len(climbs):,} pairs of a synset and its ancestor, {len(random):,} at random", flush=True)
    place = np.full(len(plain), -1)
    place[population] = np.arange(len(population))
    inside = (place[a] >= 0) & (place[b] >= 0)
    counts = {}
    for kind, matrix in (
        ("path", lambda: 1.0 / (1.0 + taxonomy.path_distances(population))),
        ("wup", lambda: taxonomy.wup_matrix(population)),
    ):
        ask = getattr(taxonomy, f"{kind}_similarity")
        theirs = np.array(list(_asked(kind, plain, a, b)), dtype=np.float64)  # None is NaN
        same = (ask(a, b) == theirs) | (np.isnan(ask(a, b)) & np.isnan(theirs))
        same[inside] &= matrix()[place[a[inside]], place[b[inside]]] == theirs[inside]
        counts[kind] = int((~same).sum()), len(a)
    return counts


def _asked(kind: str, plain: list[Any], a: Ids, b: Ids) -> Iterator[float | None]:
    """NLTK's numbers, pair by pair, with a line now and then."""
    for k, (i, j) in enumerate(zip(a.tolist(), b.tolist(), strict=True), start=1):
        yield getattr(plain[i], f"{kind}_similarity")(plain[j])
        if k % 25_000 == 0 or k == len(a):
            print(f"parity: {kind}, {k:,} of {len(a):,} pairs", flush=True)


def _pair_by_pair(kind: str, plain: list[Any], pairs: Ids) -> float:
    """NLTK's seconds a pair."""
    asked = [(getattr(plain[i], f"{kind}_similarity"), plain[j]) for i, j in pairs.tolist()]
    start = time.perf_counter()
    for ask, other in asked:
        ask(other)
    return (time.perf_counter() - start) / len(pairs)


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _spread(seconds: list[float], unit: float, name: str, digits: int = 2) -> str:
    """The best, and how far the worst was from it."""
    return f"{min(seconds) * unit:.{digits}f} {name} (… {max(seconds) * unit:.{digits}f})"
