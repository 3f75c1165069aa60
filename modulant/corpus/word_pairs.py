"""Pairs of words that people have rated for similarity, and the senses that WordNet gives each word.

Known collections are SimLex-999 (Hill, Reichart and Korhonen 2015) and WordSim-353 (Finkelstein et al. 2002). Neither
is shipped here; the package gensim carries both among its test files.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modulant.lexicon import Lexicon

MIN_PAIRS = 3  # of a correlation: two pairs always give 1 or −1
SENSES = 6  # of a word, by default
_OF_GENSIM = ("simlex999.txt", "wordsim353.tsv")


@dataclass(frozen=True, eq=False)
class WordPairs:
    """Rated pairs of words.

    Attributes:
        name: the file's, in lower case and without its ending: ``simlex999``.
        words: as in the file.
        ratings: one a pair, the higher the more similar, on any scale.
    """

    name: str
    words: Sequence[tuple[str, str]]
    ratings: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.words)


def read_word_pairs(file: Path) -> WordPairs:
    """Read a UTF-8 file of three columns: word, word, rating, separated by tabs, else commas, else spaces.

    Empty lines and those that begin with # are skipped; so is a first line whose third column is no number.

    Raises:
        ValueError: the file cannot be read, or a line is not like that; the message has its number.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror}); name a file of three columns") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 (byte {error.start + 1}: {error.reason}); convert it") from error
    words: list[tuple[str, str]] = []
    ratings: list[float] = []
    header = True
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        separator = next((separator for separator in "\t," if separator in line), None)
        cells = [cell.strip().strip('"') for cell in line.split(separator)]
        if len(cells) != 3 or not all(cells):
            wanted = "it must be word, word, rating, separated by tabs, commas or spaces"
            raise ValueError(f"{file}, line {number} has {sum(map(bool, cells))} columns; {wanted}")
        rating = _rating(cells[2])
        if rating is not None:
            words.append((cells[0], cells[1]))
            ratings.append(rating)
        elif not header:
            raise ValueError(f"{file}, line {number}: the rating {cells[2]!r} is no finite number")
        header = False
    return WordPairs(file.stem.lower(), words, np.array(ratings, dtype=np.float64))


def _rating(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def gensim_word_pairs() -> list[Path]:
    """SimLex-999 and WordSim-353 as files of the package gensim, which is not imported.

    Raises:
        ValueError: gensim is not installed, or has no such files.
    """
    spec = find_spec("gensim")
    folder = Path(spec.origin).parent / "test" / "test_data" if spec and spec.origin else None
    files = [folder / name for name in _OF_GENSIM] if folder else []
    if not files or not all(file.is_file() for file in files):
        missing = "gensim is not installed" if folder is None else f"{folder} lacks {' or '.join(_OF_GENSIM)}"
        raise ValueError(
            f"{missing}; name a file of word pairs by --pairs FILE, or install SimLex-999 and WordSim-353: "
            "pip install 'modulant[similarity]'"
        )
    return files


@dataclass(frozen=True, eq=False)
class SensePairs:
    """The pairs of a file whose words are both in WordNet, with the definitions of their senses.

    Attributes:
        name: the file's.
        total: pairs in the file.
        outside: its words that are not in WordNet, sorted.
        ratings: (n,), one a pair that is left.
        senses: (n) pairs of synset rows: of the first word and of the second, in WordNet's order.
    """

    name: str
    total: int
    outside: Sequence[str]
    ratings: npt.NDArray[np.float64]
    senses: Sequence[tuple[Sequence[int], Sequence[int]]]
    lexicon: Lexicon

    @classmethod
    def of(cls, pairs: WordPairs, lexicon: Lexicon, senses: int = SENSES) -> "SensePairs":
        """Look the words up.

        Args:
            senses: of a word, at most, in WordNet's order; 0 for all.

        Raises:
            ValueError: fewer than three pairs are left.
        """
        found = {word: lexicon.synsets_of(word)[: senses or None] for pair in pairs.words for word in pair}
        outside = sorted(word for word, synsets in found.items() if not synsets)
        kept = [i for i, (a, b) in enumerate(pairs.words) if found[a] and found[b]]
        if len(kept) < MIN_PAIRS:
            lacks = f"; it lacks {', '.join(outside[:3])}{' …' * (len(outside) > 3)}" if outside else ""
            raise ValueError(
                f"{pairs.name}: {len(kept)} of {len(pairs)} pairs have both words in WordNet{lacks}; a correlation "
                f"needs {MIN_PAIRS}"
            )
        both = [(found[pairs.words[i][0]], found[pairs.words[i][1]]) for i in kept]
        return cls(pairs.name, len(pairs), outside, pairs.ratings[kept], both, lexicon)

    def __len__(self) -> int:
        return len(self.senses)

    @cached_property
    def texts(self) -> list[tuple[list[str], list[str]]]:
        """Definitions of `senses`."""
        texts = self.lexicon.definitions
        return [([texts[row] for row in a], [texts[row] for row in b]) for a, b in self.senses]

    @property
    def distinct_texts(self) -> list[str]:
        """Every definition of any sense, once."""
        return list(dict.fromkeys(text for both in self.texts for some in both for text in some))

    @cached_property
    def shared(self) -> npt.NDArray[np.bool_]:
        """(n,): the two words have a sense in common, or senses of one definition: the largest cosine is 1."""
        return np.array([not set(a).isdisjoint(b) for a, b in self.texts], dtype=bool)

    def untrained(self, trained: Collection[int]) -> npt.NDArray[np.bool_]:
        """(n,): none of the pair's senses is among these synset rows."""
        rows = set(trained)
        return np.array([rows.isdisjoint(a) and rows.isdisjoint(b) for a, b in self.senses], dtype=bool)


def read_sense_pairs(paths: Sequence[Path], lexicon: Lexicon, senses: int = SENSES) -> list[SensePairs]:
    """Read files of word pairs and look up their words.

    Args:
        paths: files, such as `gensim_word_pairs()`.
        senses: of a word, at most, in WordNet's order; 0 for all.

    Raises:
        ValueError: a file cannot be used, or two files have one name.
    """
    read = [read_word_pairs(path) for path in paths]
    names = [pairs.name for pairs in read]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two files have the name {name!r}, which their figures go by; rename one")
    return [SensePairs.of(pairs, lexicon, senses) for pairs in read]
