"""The arrays hold what NLTK reads, from wherever, and a cache that is broken or forbidden costs nothing but time."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modulant.lexicon.archive
from modulant.assets import WORDNET_SHA256, WORDNET_ZIP
from modulant.lexicon import Lexicon, LexiconError
from modulant.lexicon.archive import Archive
from tests.wordnets import Synset, members, write_folder, write_zip


def test_sizes(lexicon: Lexicon) -> None:
    assert len(lexicon) == len(lexicon.names) == len(set(lexicon.names)) == 117_659
    # WordNet's statistics say 206,941 because they fold case: "Cat" and "cat" of one synset are one word-sense pair.
    assert len(lexicon.lemmas) == 206_978
    assert lexicon.version == "3.0"
    assert len(lexicon.lexnames) == 45
    counts = dict(zip(*np.unique(lexicon.pos, return_counts=True), strict=True))
    assert counts == {"n": 82_115, "v": 13_767, "a": 7_463, "s": 10_693, "r": 3_621}


def test_equal_to_nltk(lexicon: Lexicon, nltk_synsets: list[Any]) -> None:
    assert list(lexicon.names) == [synset.name() for synset in nltk_synsets]
    assert lexicon.pos.tolist() == [synset.pos() for synset in nltk_synsets]
    assert list(lexicon.definitions) == [synset.definition() for synset in nltk_synsets]
    for row in np.random.default_rng(0).choice(len(lexicon), 3000, replace=False).tolist():
        synset = nltk_synsets[row]
        assert lexicon.lemmas_of(row) == [name.replace("_", " ") for name in synset.lemma_names()]
        assert lexicon.examples_of(row) == synset.examples()
        assert lexicon.lexnames[int(lexicon.lexname[row])] == synset.lexname()
        hypernyms = lexicon.hypernyms[lexicon.hypernym_starts[row] : lexicon.hypernym_starts[row + 1]]
        above = [up.name() for kind in (synset.hypernyms(), synset.instance_hypernyms()) for up in sorted(kind)]
        assert [lexicon.names[int(up)] for up in hypernyms] == above


def test_senses_of_a_word_are_nltks(lexicon: Lexicon) -> None:
    """In NLTK's order. NLTK also finds base forms, which are left out here."""
    reader = Archive.find().reader()
    words = sorted({lemma.lower() for lemma in lexicon.lemmas})[::50]
    for word in [*words, "dog", "aesthetic", "light", "US"]:  # satellites between adjectives; four parts of speech
        key = word.lower().replace(" ", "_")
        theirs = [s.name() for s in reader.synsets(key) if key in {name.lower() for name in s.lemma_names()}]
        expected = list(dict.fromkeys(theirs))
        assert [lexicon.names[row] for row in lexicon.synsets_of(word)] == expected
    for stream in reader._data_file_map.values():
        stream.close()
    assert lexicon.synsets_of("Ice_Cream") == lexicon.synsets_of("ice cream") != []
    assert lexicon.synsets_of("children") == lexicon.synsets_of("") == []


def test_the_bundled_zip_is_read_in_place() -> None:
    archive = Archive.find()
    assert (archive.path, archive.sha256) == (WORDNET_ZIP, WORDNET_SHA256)


def test_a_reload_knows_no_nltk(lexicon: Lexicon) -> None:
    program = (
        "import sys; from modulant.lexicon import Lexicon; x = Lexicon.load(); x.taxonomy.index('dog.n.01'); "
        "print(len(x), sorted({'nltk', 'torch', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("117659 []\n", "")


@pytest.mark.parametrize("place", ["corpora/wordnet.zip", "wordnet.zip", "corpora/wordnet", "wordnet", "."])
def test_a_users_own(small: list[Synset], place: str, tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "nltk_data"
    (write_zip if place.endswith("zip") else write_folder)(small, root / place)
    for _ in ("compiled", "cached"):
        own = Lexicon.load(root)
        names = "canine.a.01 doggedly.r.01 entity.n.01 dog.n.01 rex.n.01 island.n.01 bark.v.01"
        assert list(own.names) == names.split()
        assert own.lemmas_of(3) == ["dog", "domestic dog"]
        assert [own.synsets_of(word) for word in ("Domestic_dog", "rex", "bark", "barks")] == [[3], [4], [6], []]
        assert own.examples_of(3) == ["the dog barked", "a dog’s life"]
        assert own.definitions[3] == "an animal that barks"
        assert own.hypernyms.tolist() == [2, 3]
        assert own.hypernym_starts.tolist() == [0, 0, 0, 0, 1, 2, 2, 2]


def test_a_zip_named_directly(small: list[Synset], tmp_path: Path, cache: Path) -> None:
    assert len(Lexicon.load(write_zip(small, tmp_path / "mine.zip"))) == 7


@pytest.mark.parametrize("folder", ["wordnet31/", "nltk_data/corpora/wordnet2021/", ""])
def test_a_zip_whose_folder_has_another_name(small: list[Synset], folder: str, tmp_path: Path, cache: Path) -> None:
    """NLTK's `wordnet31.zip` has a folder of its own name."""
    assert len(Lexicon.load(write_zip(small, tmp_path / "wordnet31.zip", folder))) == 7


@pytest.mark.parametrize("place", ["corpora/wordnet31.zip", "wordnet31.zip", "corpora/wordnet31"])
def test_another_wordnet_of_nltks(small: list[Synset], place: str, tmp_path: Path, cache: Path) -> None:
    if place.endswith("zip"):
        write_zip(small, tmp_path / place, "wordnet31/")
    else:
        write_folder(small, tmp_path / place)
    assert len(Lexicon.load(tmp_path)) == 7


def test_compiled_once(small: list[Synset], tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_zip(small, tmp_path / "mine.zip")
    Lexicon.load(file)
    assert "compiling WordNet (mine.zip)" in capsys.readouterr().out
    Lexicon.load(file)
    assert capsys.readouterr() == ("", "")
    write_zip([*small, Synset(("more",), "one more")], file)
    assert len(Lexicon.load(file)) == 8
    assert len(list(cache.iterdir())) == 2, "one file an archive, and none half written"


def _flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def test_a_cache_that_is_not_whole_is_compiled_again(small: list[Synset], tmp_path: Path, cache: Path) -> None:
    archive = write_zip(small, tmp_path / "mine.zip")
    names = list(Lexicon.load(archive).names)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    flips = [_flipped(whole, int(at)) for at in np.random.default_rng(0).integers(len(whole), size=40)]
    for damaged in (b"", whole[:-1], whole[: len(whole) // 2], b"PK\x03\x04nonsense", b"\x93NUMPY", *flips):
        file.write_bytes(damaged)
        again = Lexicon.load(archive)
        assert list(again.names) == names
        assert again.lemmas_of(3) == ["dog", "domestic dog"]
        assert again.hypernyms.tolist() == [2, 3]
    np.save(cache / "array.npy", np.zeros(3))
    os.replace(cache / "array.npy", file)
    assert list(Lexicon.load(archive).names) == names


def test_published_by_renaming(
    small: list[Synset],
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(Lexicon.load(write_zip(small, tmp_path / "mine.zip"))) == 7
    line = capsys.readouterr().err.splitlines()[-1]
    assert "cannot be cached (No space left on device); going on without" in line
    assert list(cache.iterdir()) == [], "what was half written is taken away"


def test_an_unwritable_cache_goes_on(
    small: list[Synset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MODULANT_CACHE", str(tmp_path / "file" / "cache"))  # a mode would not stop root
    assert len(Lexicon.load(write_zip(small, tmp_path / "mine.zip"))) == 7
    assert "cannot be cached" in capsys.readouterr().err


def test_a_flipped_byte_in_the_bundled_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "wordnet-3.0.zip"
    shutil.copy(WORDNET_ZIP, damaged)
    with damaged.open("r+b") as file:
        file.seek(5_000_000)
        byte = file.read(1)[0]
        file.seek(5_000_000)
        file.write(bytes([byte ^ 1]))
    monkeypatch.setattr(modulant.lexicon.archive, "WORDNET_ZIP", damaged)
    with pytest.raises(LexiconError, match=r"is damaged \(sha256 .*, should be 951b1f403383…\)") as error:
        Lexicon.load()
    assert "\n" not in str(error.value)
    damaged.unlink()
    with pytest.raises(LexiconError, match="the bundled WordNet is missing"):
        Lexicon.load()


def _without(file: Path, small: list[Synset], missing: str) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members(small).items():
            if name != missing:
                archive.writestr(f"wordnet/{name}", content)


@pytest.mark.parametrize("missing", ["lexnames", "data.verb", "index.noun", "noun.exc"])
def test_a_users_archive_that_lacks_a_file(small: list[Synset], missing: str, tmp_path: Path, cache: Path) -> None:
    _without(tmp_path / "mine.zip", small, missing)
    with pytest.raises(LexiconError, match="not a WordNet that NLTK can read") as error:
        Lexicon.load(tmp_path / "mine.zip")
    assert "\n" not in str(error.value)
    assert not cache.exists()


def test_a_users_archive_that_is_damaged(small: list[Synset], tmp_path: Path, cache: Path) -> None:
    file = write_zip(small, tmp_path / "mine.zip")
    for damaged in (b"", b"no zip at all", file.read_bytes()[:-30]):
        file.write_bytes(damaged)
        with pytest.raises(LexiconError, match="not a WordNet that NLTK can read") as error:
            Lexicon.load(file)
        assert "\n" not in str(error.value)
    with pytest.raises(LexiconError, match="no synsets"):
        Lexicon.load(write_zip([], file))


def test_a_folder_without_wordnet(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(LexiconError, match=r"no WordNet here; expected corpora/wordnet\.zip"):
            Lexicon.load(folder)
