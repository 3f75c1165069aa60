"""Writes small WordNets in Princeton's format (wndb(5WN)), so that tests need not compile the whole one each time."""

import zipfile
from pathlib import Path
from typing import NamedTuple

from modulant.lexicon import Lexicon

FILES = {"n": "noun", "v": "verb", "a": "adj", "s": "adj", "r": "adv"}
# Two spaces before the number mark a line that is no synset; NLTK finds the version in one of these.
HEADER = "  1 WordNet 3.0 Copyright by nobody: this one was made for a test.  \n"


class Synset(NamedTuple):
    lemmas: tuple[str, ...]
    gloss: str
    pos: str = "n"
    hypernyms: tuple[int, ...] = ()  # positions in the list that is written
    instance_hypernyms: tuple[int, ...] = ()


def members(synsets: list[Synset]) -> dict[str, bytes]:
    """The files of a database: name → content."""
    offsets: dict[int, int] = {}
    files: dict[str, str] = {}
    for final in (False, True):  # lines are as long with the offsets as without
        for name in dict.fromkeys(FILES.values()):
            text = HEADER
            for i, synset in enumerate(synsets):
                if FILES[synset.pos] != name:
                    continue
                offsets[i] = len(text.encode())
                words = " ".join(f"{lemma.replace(' ', '_')} 0" for lemma in synset.lemmas)
                up = [("@", j) for j in synset.hypernyms] + [("@i", j) for j in synset.instance_hypernyms]
                pointers = " ".join(f"{symbol} {offsets.get(j, 0):08d} {synsets[j].pos} 0000" for symbol, j in up)
                frames = " 00" if synset.pos == "v" else ""
                text += f"{offsets[i]:08d} 03 {synset.pos} {len(synset.lemmas):02x} {words} {len(up):03d} "
                text += f"{pointers}{' ' if up else ''}{frames.strip()}{' ' if frames else ''}| {synset.gloss}  \n"
            files[f"data.{name}"] = text
            files[f"index.{name}"] = HEADER + _index(synsets, offsets, name) if final else ""
            files[f"{name}.exc"] = ""
    files["lexnames"] = "".join(f"{i:02d}\tnoun.test{i}\t1\n" for i in range(45))
    return {name: text.encode() for name, text in files.items()}


def _index(synsets: list[Synset], offsets: dict[int, int], name: str) -> str:
    senses: dict[str, list[int]] = {}
    for i, synset in enumerate(synsets):
        if FILES[synset.pos] == name:
            for lemma in synset.lemmas:
                senses.setdefault(lemma.replace(" ", "_").lower(), []).append(offsets[i])
    pos = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}[name]
    return "".join(
        f"{lemma} {pos} {len(found)} 0 {len(found)} 0 {' '.join(f'{offset:08d}' for offset in found)}  \n"
        for lemma, found in sorted(senses.items())
    )


def write_zip(synsets: list[Synset], file: Path, folder: str = "wordnet/") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members(synsets).items():
            archive.writestr(f"{folder}{name}", content)
    return file


def write_folder(synsets: list[Synset], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in members(synsets).items():
        (folder / name).write_bytes(content)
    return folder


def excerpt(lexicon: Lexicon, rows: list[int]) -> list[Synset]:
    """Some synsets of a lexicon, with their lemmas, definitions and examples, without the taxonomy.

    Satellites become plain adjectives: NLTK wants to see their heads.
    """
    return [
        Synset(
            lemmas=tuple(lexicon.lemmas_of(row)),
            gloss="; ".join([lexicon.definitions[row], *(f'"{text}"' for text in lexicon.examples_of(row))]),
            pos=str(lexicon.pos[row]).replace("s", "a"),
        )
        for row in rows
    ]


def with_taxonomy(lexicon: Lexicon, rows: list[int]) -> list[Synset]:
    """Some synsets of a lexicon and all that is above them, with their hypernyms."""

    def up(row: int) -> list[int]:
        return lexicon.hypernyms[lexicon.hypernym_starts[row] : lexicon.hypernym_starts[row + 1]].tolist()

    found, waiting = set(rows), list(rows)
    while waiting:
        new = [above for above in up(waiting.pop()) if above not in found]
        found.update(new)
        waiting += new
    kept = sorted(found)
    place = {row: i for i, row in enumerate(kept)}
    return [
        synset._replace(hypernyms=tuple(place[above] for above in up(row)))
        for synset, row in zip(excerpt(lexicon, kept), kept, strict=True)
    ]
