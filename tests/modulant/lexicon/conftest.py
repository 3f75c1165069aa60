"""NLTK's own reader, which is slow, is opened once; small WordNets stand for a user's own."""

from pathlib import Path
from typing import Any

import pytest

from modulant.lexicon import Lexicon
from modulant.lexicon.archive import Archive
from tests.wordnets import Synset


@pytest.fixture(scope="session")
def lexicon() -> Lexicon:
    return Lexicon.load()


@pytest.fixture(scope="session")
def nltk_synsets() -> list[Any]:
    """All of WordNet as NLTK reads it from the bundled zip."""
    return list(Archive.find().reader().all_synsets())


@pytest.fixture
def small() -> list[Synset]:
    """Seven synsets, in the order in which NLTK reads the files."""
    return [
        Synset(("canine",), "like a dog", "a"),
        Synset(("doggedly",), "in the manner of a dog", "r"),
        Synset(("entity",), "that which is"),
        Synset(("dog", "domestic dog"), 'an animal that barks; "the dog barked"; "a dog’s life"', hypernyms=(2,)),
        Synset(("Rex",), "a certain dog", instance_hypernyms=(3,)),
        Synset(("island",), "a noun of another root"),
        Synset(("bark",), "make the sound of a dog", "v"),
    ]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MODULANT_CACHE", str(folder))
    return folder
