"""WordNet, compiled once into arrays.

Reading WordNet through NLTK takes about 15 s and half a gigabyte. It is done once per archive: the arrays go into the
user's cache folder under the archive's checksum, and later loads take a small part of a second.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modulant.lexicon.archive import Archive, LexiconError
from modulant.lexicon.strings import Strings
from modulant.lexicon.taxonomy import Taxonomy
from modulant.storage import cache_arrays, cache_folder, content_key, read_arrays

_ARCHIVE = "archive.sha256"  # the key in a cache file that holds the archive's checksum
_FORMAT = 4  # of the cache file; one more whenever the arrays change
_POS_ORDER = {"n": 0, "v": 1, "a": 2, "s": 2, "r": 3}  # of a word's senses


@dataclass(frozen=True, eq=False)
class Lexicon:
    """All of WordNet, one row per synset, in the order of NLTK's ``all_synsets()``.

    Ragged columns (lemmas, examples, hypernyms) are flat with ``*_starts``: row ``i`` owns ``starts[i]:starts[i + 1]``.
    """

    version: str
    names: Strings  # "dog.n.01"
    pos: npt.NDArray[np.str_]  # one of n, v, a, s, r
    lexnames: Strings  # the lexicographer files' names
    lexname: npt.NDArray[np.uint8]  # index into lexnames
    definitions: Strings
    lemmas: Strings  # with "_" written as a space
    lemma_starts: npt.NDArray[np.int64]
    lemma_senses: npt.NDArray[np.uint16]  # sense number of each lemma within its part of speech, from 0
    examples: Strings
    example_starts: npt.NDArray[np.int64]
    hypernyms: npt.NDArray[np.int32]  # hypernyms and instance hypernyms, as rows, each by name
    hypernym_starts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def load(cls, nltk_data: str | Path | None = None) -> "Lexicon":
        """The bundled WordNet 3.0, or that of a user-supplied ``nltk_data`` folder; from the cache if it is there.

        Raises:
            LexiconError: the archive is missing, damaged, or no WordNet.
        """
        archive = Archive.find(nltk_data)
        file = cache_folder() / f"wordnet-{archive.sha256[:16]}-v{_FORMAT}.npz"
        if (found := _read(file, archive.sha256)) is not None:
            return found
        lexicon = _compile(archive)
        cache_arrays(file, _arrays(lexicon, archive.sha256), "WordNet's arrays")
        return lexicon

    @cached_property
    def digest(self) -> str:
        """`content_key` of all arrays."""
        return content_key(_arrays(self, ""))

    @cached_property
    def part_of_speech(self) -> npt.NDArray[np.str_]:
        """Of each synset one of n, v, a, r: a satellite adjective (s) is an adjective (a)."""
        return np.where(self.pos == "s", "a", self.pos)

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The hypernym graph and the similarities on it."""
        return Taxonomy(self.names, self.pos, self.hypernyms, self.hypernym_starts)

    def lemmas_of(self, synset: int) -> list[str]:
        return self.lemmas[int(self.lemma_starts[synset]) : int(self.lemma_starts[synset + 1])]

    def synsets_of(self, word: str) -> list[int]:
        """Rows of the synsets with this lemma, in WordNet's order: nouns, verbs, adjectives, adverbs, each by sense.

        The lower sense number is the more frequent sense. Case does not matter, and "_" is a space. There is no
        morphology: only a base form has senses.
        """
        return list(self._rows_by_lemma.get(word.replace("_", " ").lower(), ()))

    @cached_property
    def _rows_by_lemma(self) -> dict[str, dict[int, None]]:
        """Lower-case lemma → its synsets' rows as an ordered set: a synset may have a word in two spellings."""
        row = np.repeat(np.arange(len(self)), np.diff(self.lemma_starts))
        pos = np.array([_POS_ORDER[pos] for pos in self.pos.tolist()])
        found: dict[str, dict[int, None]] = {}
        lemmas = list(self.lemmas)
        for i in np.lexsort((self.lemma_senses, pos[row])).tolist():
            found.setdefault(lemmas[i].lower(), {})[int(row[i])] = None
        return found

    def examples_of(self, synset: int) -> list[str]:
        return self.examples[int(self.example_starts[synset]) : int(self.example_starts[synset + 1])]


def _compile(archive: Archive) -> Lexicon:
    """Reads everything through NLTK once."""
    reader = archive.reader()
    print(f"compiling WordNet ({archive.path.name}), once, about 15 seconds …", flush=True)
    try:
        lexicon = _walk(reader)
    except Exception as error:  # a damaged database surfaces as any exception inside NLTK
        raise archive.unreadable(error) from error
    finally:
        for stream in reader._data_file_map.values():  # NLTK would leave them open
            stream.close()
    if not len(lexicon):
        raise LexiconError(f"{archive.path}: this WordNet has no synsets")
    return lexicon


def _walk(reader: Any) -> Lexicon:
    synsets = list(reader.all_synsets())
    row = {synset.name(): i for i, synset in enumerate(synsets)}
    if len(row) < len(synsets):
        raise ValueError("two of its synsets have one name")
    lexnames = sorted({synset.lexname() for synset in synsets})
    number = {name: i for i, name in enumerate(lexnames)}
    lemmas = [[lemma.replace("_", " ") for lemma in synset.lemma_names()] for synset in synsets]
    senses = [_sense(reader, synset, lemma) for synset in synsets for lemma in synset.lemma_names()]
    examples = [synset.examples() for synset in synsets]
    # NLTK keeps pointers in a set, whose order changes from process to process.
    above = [
        [row[up.name()] for kind in (synset.hypernyms(), synset.instance_hypernyms()) for up in sorted(kind)]
        for synset in synsets
    ]
    return Lexicon(
        version=str(reader.get_version()),
        names=Strings.of(row),
        pos=np.array([synset.pos() for synset in synsets], dtype="U1"),
        lexnames=Strings.of(lexnames),
        lexname=np.array([number[synset.lexname()] for synset in synsets], dtype=np.uint8),
        definitions=Strings.of(synset.definition() for synset in synsets),
        lemmas=Strings.of(lemma for some in lemmas for lemma in some),
        lemma_starts=_starts(lemmas),
        lemma_senses=np.array(senses, dtype=np.uint16),
        examples=Strings.of(example for some in examples for example in some),
        example_starts=_starts(examples),
        hypernyms=np.array([up for some in above for up in some], dtype=np.int32),
        hypernym_starts=_starts(above),
    )


def _sense(reader: Any, synset: Any, lemma: str) -> int:
    """Place of a synset among a lemma's senses of its part of speech; after all of them where no index lists it."""
    pos = synset.pos().replace("s", "a")  # the index counts satellites among the adjectives
    offsets = reader._lemma_pos_offset_map.get(lemma.lower(), {}).get(pos, [])
    return offsets.index(synset.offset()) if synset.offset() in offsets else len(offsets)


def _starts(ragged: list[Any]) -> npt.NDArray[np.int64]:
    starts = np.zeros(len(ragged) + 1, dtype=np.int64)
    np.cumsum([len(some) for some in ragged], out=starts[1:])
    return starts


def _arrays(lexicon: Lexicon, sha256: str) -> dict[str, npt.NDArray[Any]]:
    """What a cache file holds: name → array."""
    arrays = {_ARCHIVE: np.asarray(sha256)}
    for field in fields(lexicon):
        value = getattr(lexicon, field.name)
        if isinstance(value, Strings):
            arrays[f"{field.name}.buffer"], arrays[f"{field.name}.offsets"] = value.buffer, value.offsets
        else:
            arrays[field.name] = np.asarray(value)
    return arrays


def _read(file: Path, sha256: str) -> Lexicon | None:
    """The cached lexicon of this archive; None if there is no intact one."""
    arrays = read_arrays(file)
    if arrays is None or str(arrays.get(_ARCHIVE)) != sha256:
        return None
    values: dict[str, Any] = {}
    try:
        for field in fields(Lexicon):
            if field.type is Strings:
                values[field.name] = Strings(arrays[f"{field.name}.buffer"], arrays[f"{field.name}.offsets"])
            else:
                values[field.name] = arrays[field.name]
        values["version"] = str(values["version"])
        found = Lexicon(**values)
        return found if _fits_together(found) else None
    except (LookupError, TypeError, ValueError):  # arrays of another kind; they are compiled again
        return None


def _fits_together(lexicon: Lexicon) -> bool:
    """Whether the arrays are consistent: offsets ascend and end where their data do, indices are in range."""

    def rises(starts: npt.NDArray[np.int64], rows: int, end: int) -> bool:
        whole = starts.dtype == np.int64 and starts.shape == (rows + 1,) and starts[0] == 0 and starts[-1] == end
        return bool(whole and (np.diff(starts) >= 0).all())

    n = len(lexicon)
    texts = (lexicon.names, lexicon.lexnames, lexicon.definitions, lexicon.lemmas, lexicon.examples)
    ragged = (
        (lexicon.lemma_starts, len(lexicon.lemmas)),
        (lexicon.example_starts, len(lexicon.examples)),
        (lexicon.hypernym_starts, len(lexicon.hypernyms)),
    )
    above = lexicon.hypernyms
    return bool(
        n > 0
        and len(lexicon.definitions) == n
        and all(text.buffer.dtype == np.uint8 and rises(text.offsets, len(text), len(text.buffer)) for text in texts)
        and all(rises(starts, n, end) for starts, end in ragged)
        and lexicon.lemma_senses.dtype == np.uint16
        and lexicon.lemma_senses.shape == (len(lexicon.lemmas),)
        and lexicon.pos.shape == (n,)
        and set(np.unique(lexicon.pos)) <= set("nvasr")
        and lexicon.lexname.dtype == np.uint8
        and lexicon.lexname.shape == (n,)
        and int(lexicon.lexname.max()) < len(lexicon.lexnames)
        and above.dtype == np.int32
        and (not len(above) or (int(above.min()) >= 0 and int(above.max()) < n))
    )
