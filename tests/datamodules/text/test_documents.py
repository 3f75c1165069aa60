"""Documents of every kind of file, and one line for each that cannot be read."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from datamodules.arguments import check_corpus, files_of
from datamodules.text import documents
from datamodules.text.documents import Hub, open_source
from modulant.lexicon import Lexicon
from scripts.kjv import chapters


def of(corpus: Path | str, **arguments: Any) -> list[str]:
    return list(open_source(str(corpus), **arguments).documents())


def test_paragraphs_of_a_text_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffone\ntwo\r\n \t\r\n\r\n\n  three  \n\nfour\n".encode())
    assert of(file) == ["one\ntwo", "three", "four"]
    assert list(open_source(str(file)).documents_from(2)) == ["four"]


def test_marks_take_the_place_of_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one\n\ntwo<|endoftext|>three<|endoftext|><|endoftext|>\n")
    assert of(file) == ["one\n\ntwo", "three"]


def test_a_file_of_a_folder_is_a_document(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "b.txt").write_text("one\n\ntwo")
    (tmp_path / "in" / "c.md").write_text("three<|endoftext|>four")
    (tmp_path / "a.jsonl").write_text('{"text": "five"}\n')
    (tmp_path / "d.bin").write_bytes(b"\0")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "e.txt").write_text("six")
    (tmp_path / "empty.txt").touch()
    assert [file.name for file in files_of(str(tmp_path))] == ["a.jsonl", "b.txt", "empty.txt", "c.md"]
    assert of(tmp_path) == ["five", "one\n\ntwo", "three", "four"]


@pytest.mark.parametrize("end", [".jsonl", ".ndjson.gz"])
def test_json_lines(tmp_path: Path, end: str) -> None:
    rows = [{"body": "one\n\ntwo", "n": 1}, {"body": None}, {"body": " naïve 雪 "}]
    content = "\n".join(json.dumps(row) for row in rows).encode() + b"\n\n"
    file = tmp_path / f"a{end}"
    file.write_bytes(gzip.compress(content) if end.endswith("gz") else content)
    assert of(file, column="body") == ["one\n\ntwo", "", "naïve 雪"]


def test_parquet_and_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder takes the hub's place: the package reads both in the same way."""
    pytest.importorskip("datasets")
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    rows = [f"document {i}" for i in range(5)] + [None]
    parquet.write_table(arrow.table({"text": rows, "n": list(range(6))}), tmp_path / "a.parquet")
    expected = [*rows[:5], ""]
    assert of(tmp_path / "a.parquet") == expected
    hub = documents._OfHub(str(tmp_path), "text", Hub())
    assert list(hub.documents()) == expected
    assert list(hub.documents_from(4)) == expected[4:]
    with pytest.raises(ValueError, match=r"row 1 has nothing under 'body' \(data.column\); its keys are text, n"):
        list(documents._OfHub(str(tmp_path), "body", Hub()).documents())
    with pytest.raises(ValueError, match=r"a.parquet has nothing under 'body' \(data.column\); its keys are text, n"):
        of(tmp_path / "a.parquet", column="body")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"b.parquet is no readable Parquet"):
        of(tmp_path / "b.parquet")


def test_a_hub_that_cannot_be_asked() -> None:
    """Of a commit nothing need be asked: what was prepared before is found by it."""
    with pytest.raises(ValueError, match=r"^data.corpus: the hub does not say which commit owner/name is at \([^\n]*$"):
        documents._OfHub("owner/name", "text", Hub(revision="main")).identity()
    commit = "0123456789" * 4
    named = documents._OfHub("owner/name", "text", Hub("sample", "train", commit)).identity()
    assert named == f"hub owner/name sample train text {commit}"


def test_wordnet_says_everything_once() -> None:
    lexicon = Lexicon.load()
    found = of("wordnet")
    assert len(found) == len(set(found)) == len(set(lexicon.definitions))
    sentences = [*set(map(str.strip, lexicon.definitions)), *set(map(str.strip, lexicon.examples))]
    assert sum(map(len, found)) == sum(map(len, sentences)) + 2 * (len(sentences) - len(found)), "joined by two signs"
    dog = next(text for text in found if text.startswith("a member of the genus Canis"))
    assert dog.endswith("breeds; the dog barked all night")


def test_a_checksum_is_of_contents_and_of_how_they_are_read(tmp_path: Path) -> None:
    for name, text in (("a.txt", "one"), ("b.txt", "one"), ("c.txt", "two"), ("d.jsonl", "one")):
        (tmp_path / name).write_text(text)
    a, b, c, d = (open_source(str(tmp_path / name)).identity() for name in ("a.txt", "b.txt", "c.txt", "d.jsonl"))
    assert a == b
    assert len({a, c, d, open_source(str(tmp_path)).identity()}) == 4


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.txt", b"text\n\n\xff\xfe", r"a.txt is no text in UTF-8 \(invalid start byte at byte 6\)"),
        ("a.txt", b"text\n\nte\0xt", r"a.txt is no text in UTF-8 \(a byte 0 at byte 8\)"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', r"a.jsonl, line 2, is no JSON \("),
        ("a.jsonl", b'{"text": "\xff"}\n', r"a.jsonl, line 1, is no JSON \("),
        ("a.jsonl", b'{"body": "a", "n": 1}\n', r"line 1 has nothing under 'text' \(data.column\); its keys are bo"),
        ("a.jsonl", b"[1]\n", r"line 1 has nothing under 'text' \(data.column\); it is no mapping"),
        ("a.jsonl", b'{"text": 3}\n', r"line 1 has no text under 'text' \(data.column\), but int"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', r"line 1 has half of a surrogate pair"),
        ("a.jsonl.gz", b"no gzip", r"a.jsonl.gz is damaged after line 0 \("),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 9, mtime=0)[:-9], r"a.jsonl.gz is damaged after line \d \("),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: bytes, line: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=line) as error:
        of(tmp_path / name)
    assert str(error.value).startswith("data.corpus: ")
    assert "\n" not in str(error.value)


def test_a_document_longer_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MOST_BYTES", 2**20)
    (tmp_path / "a.txt").write_text("a\n\n" + "b" * (2**20 + 1))
    with pytest.raises(ValueError, match=r"a.txt has a document of 1 MiB, and the most is 1; separate documents by bl"):
        of(tmp_path / "a.txt")
    (tmp_path / "a.jsonl").write_text("b" * (2**20 + 1))
    with pytest.raises(ValueError, match=r"a.jsonl has a line of more than 1 MiB"):
        of(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("corpus", "line"),
    [
        ("wordnt", "'wordnt' is neither wordnet nor kjv, nor a file or folder, .*; did you mean wordnet"),
        ("{}/none.txt", "'.*none.txt' is neither"),
        ("owner/name.jsonl", "'owner/name.jsonl' is neither"),
        ("kjv", "kjv is not prepared; run python scripts/kjv.py"),
        ("{}/empty", "holds no file that ends in .txt, .md"),
        ("{}/fifo", "fifo is no regular file"),
    ],
)
def test_a_corpus_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: str, line: str) -> None:
    monkeypatch.setenv("MODULANT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match=f"^data.corpus: .*{line}"):
        check_corpus(corpus.format(tmp_path))


@pytest.mark.parametrize(
    ("corpus", "package"), [("owner/name", "datasets"), ("{}/a.parquet", "pyarrow"), ("{}", "pyarrow")]
)
def test_a_package_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: str, package: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "a.parquet").touch()
    with pytest.raises(ValueError, match=rf"needs {package}, which is not installed; pip install {package}$"):
        check_corpus(corpus.format(tmp_path))


def test_the_bible_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = chapters(["Ge1:1 In the beginning ", "Ge1:2 And the earth", "1Sm10:1 Then Samuel"])
    assert text == "In the beginning\nAnd the earth\n<|endoftext|>\nThen Samuel\n"
    with pytest.raises(SystemExit, match="a line that is no verse: Usage"):
        chapters(["Usage: bible"])
    monkeypatch.setenv("MODULANT_CACHE", str(tmp_path))
    (tmp_path / "kjv-4.38.txt").write_text(text)
    with pytest.raises(ValueError, match="is not what was prepared; remove it and run python scripts/kjv"):
        open_source("kjv")
