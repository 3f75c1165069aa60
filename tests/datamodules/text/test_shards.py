"""What is on disk is the corpus: each distinct document in one part, whole, once; also after a crash."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.text import preparing, shards
from datamodules.text.documents import Source, open_source
from datamodules.text.preparing import prepare
from datamodules.text.shards import PARTS, Recipe, Shards, part_of
from tests.runs import ROOT

RECIPE = Recipe("bpe", 300, val_fraction=0.15, test_fraction=0.1, seed=42)


class Some(Source):
    """Documents of a list."""

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.given = texts, 0

    def identity(self) -> str:
        return f"some {hash(tuple(self.texts))}"

    def documents(self) -> Iterator[str]:
        for text in self.texts:
            self.given += 1
            yield text


class Cut(Some):
    """The same, cut while documents are encoded; the tokenizer still gets all of them."""

    def __init__(self, texts: list[str], at: int) -> None:
        super().__init__(texts)
        self.at = at

    def documents_from(self, start: int) -> Iterator[str]:
        yield from islice(self.documents(), start, self.at)
        raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODULANT_CACHE", str(tmp_path))
    return tmp_path


def documents(found: Shards, part: str) -> list[str]:
    """Decoded from the stream."""
    tokens = found.tokens(part)
    marks = np.flatnonzero(tokens == found.tokenizer.end)
    assert marks[0] == 0
    assert marks[-1] == len(tokens) - 1
    return [
        found.tokenizer.decode_bytes(tokens[a + 1 : b]).decode() for a, b in zip(marks[:-1], marks[1:], strict=True)
    ]


def contents(folder: Path) -> dict[str, Any]:
    """Of every file, but for how long it took."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**found, "meta.json": {**json.loads(found["meta.json"]), "seconds": 0}}


@pytest.mark.parametrize("tokenizer", ["bpe", "bytes"])
def test_every_document_is_in_one_part_once(texts: list[str], tokenizer: str) -> None:
    given = [*texts[:200], "", *texts[100:]]
    found = prepare(Some(given), replace(RECIPE, tokenizer=tokenizer), "some")
    parts = [documents(found, part) for part in PARTS]
    assert sorted(chain(*parts)) == sorted(texts)
    for i, part in enumerate(parts):
        assert part == [text for text in texts if part_of(text, 42, 0.15, 0.1)[0] == i], "in their order"
        assert found.tally.documents[i] == len(part)
        assert found.tally.bytes[i] == sum(len(text.encode()) for text in part)
        assert found.tally.tokens[i] == len(found.tokens(PARTS[i]))
    assert 0.08 < len(parts[1]) / len(texts) < 0.22
    assert 0.05 < len(parts[2]) / len(texts) < 0.16
    assert found.describe()["repeated_documents"] == 101
    assert found.tokens("train").dtype == np.uint16


def test_counts_are_of_the_training_part(texts: list[str]) -> None:
    found = prepare(Some(texts), RECIPE, "some")
    tokens, counts = found.tokens("train").tolist(), found.tokenizer.counts
    assert counts is not None
    assert counts.tolist() == [tokens.count(i) for i in range(300)]
    commonest = int(np.argmax(counts))
    assert found.tokenizer.ranks[commonest] == 0


def test_a_document_stays_in_its_part(texts: list[str]) -> None:
    """… when others come and go; another seed splits anew."""
    some = [set(documents(prepare(Some(texts[:200]), RECIPE, "some"), part)) for part in PARTS]
    more = [set(documents(prepare(Some(texts), RECIPE, "some"), part)) for part in PARTS]
    assert all(a <= b for a, b in zip(some, more, strict=True))
    other = set(documents(prepare(Some(texts), replace(RECIPE, seed=1), "some"), "val"))
    assert len(other & more[1]) < 0.5 * len(more[1])


def test_it_is_made_once(texts: list[str]) -> None:
    first, again = Some(texts), Some(texts)
    found = prepare(first, RECIPE, "some")
    assert first.given == 2 * len(texts), "for the tokenizer, and for the tokens"
    assert prepare(again, RECIPE, "some").key == found.key
    assert again.given == 0
    for damage in (
        lambda folder: (folder / "val.bin").write_bytes(b"12"),
        lambda folder: (folder / "meta.json").write_text("{"),
        lambda folder: (folder / "tokenizer.json").unlink(),
        lambda folder: (folder / "counts.json").unlink(),
    ):
        before = contents(found.folder)
        damage(found.folder)
        assert prepare(Some(texts), RECIPE, "some").key == found.key
        assert contents(found.folder) == before


def test_the_key_is_of_everything_that_matters(texts: list[str]) -> None:
    def key(texts: list[str] = texts[:9], **changed: Any) -> str:
        return shards.key_of(Some(texts), replace(RECIPE, **changed))

    others = [
        key(texts[:10]), key(seed=1), key(val_fraction=0.2), key(test_fraction=0.0), key(vocab_size=301),
        key(max_documents=5), key(tokenizer="bytes"),
    ]  # fmt: skip
    assert len({key(), *others}) == 8
    assert key() == key()
    assert key(tokenizer="bytes") == key(tokenizer="bytes", vocab_size=301)


@pytest.mark.parametrize("noted_every", [1, 3000])
def test_after_a_crash_it_goes_on(
    texts: list[str], noted_every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(prepare(Some(texts), RECIPE, "some").folder)
    monkeypatch.setenv("MODULANT_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(preparing, "_TOGETHER", 200)
    monkeypatch.setattr(preparing, "_NOTED_EVERY", noted_every)
    folder = tmp_path / "other" / "text" / shards.key_of(Some(texts), RECIPE)[:32]
    noted = []
    for fail_at in (120, 240):
        with pytest.raises(KeyboardInterrupt):
            prepare(Cut(texts, fail_at), RECIPE, "some")
        noted.append(json.loads((folder / "notes.json").read_text())["tally"]["read"])
        with (folder / "train.bin").open("ab") as file:
            file.write(b"what was not noted")
    assert 60 < noted[0] <= 120 < 180 < noted[1] <= 240
    monkeypatch.setattr(preparing, "make_tokenizer", None)  # it is there
    assert contents(prepare(Some(texts), RECIPE, "some").folder) == whole
    assert folder.name in whole["meta.json"]["key"]


def test_two_processes_at_once_make_one(file: Path, cache: Path) -> None:
    script = (
        "import sys; from datamodules.text.documents import open_source; "
        "from datamodules.text.preparing import prepare; from datamodules.text.shards import Recipe; "
        "print(prepare(open_source(sys.argv[1]), Recipe('bpe', 300, 0.15, 0.1, 42), 'corpus').describe())"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", script, str(file)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    lines = [text.splitlines() for text in said]
    assert lines[0][-1] == lines[1][-1]
    assert sum("preparing" in line for some in lines for line in some) == 1
    assert len(list((cache / "text").iterdir())) == 1
    assert not list(cache.rglob(".run.lock"))


def test_parts_that_stay_empty(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^data.corpus: some is empty: there is no document in it$"):
        prepare(Some(["", ""]), RECIPE, "some")
    with pytest.raises(ValueError, match=r"none of the 1 distinct documents of some falls into the part '\w+'; give"):
        prepare(Some(["one", "one"]), RECIPE, "some")
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=r"a.txt is empty"):
        prepare(open_source(str(tmp_path / "a.txt")), RECIPE, "a.txt")


def test_a_tokenizer_that_does_not_keep_the_text(texts: list[str], tmp_path: Path) -> None:
    found = prepare(Some(texts), RECIPE, "some")
    content = json.loads((found.folder / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "same").mkdir()
    (tmp_path / "same" / "tokenizer.json").write_text(json.dumps(content))
    recipe = replace(RECIPE, tokenizer=str(tmp_path / "same"))
    assert prepare(Some(texts), recipe, "some").tally.documents == found.tally.documents, "of as many bytes"
    content["normalizer"] = {"type": "StripAccents"}
    (tmp_path / "same" / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"^data.tokenizer: '.*same' does not keep the text: of a document of \d+ byt"):
        prepare(Some([*texts, "e\u0301"]), recipe, "some")


def test_max_documents(texts: list[str]) -> None:
    found = prepare(Some(texts), replace(RECIPE, max_documents=150), "some")
    assert sorted(chain(*(documents(found, part) for part in PARTS))) == sorted(texts[:150])
