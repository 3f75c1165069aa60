"""Files of rated word pairs: every separator, comments, headers, one line for what is wrong; senses from WordNet."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import modulant.corpus.word_pairs
from modulant.corpus.word_pairs import SensePairs, WordPairs, gensim_word_pairs, read_sense_pairs, read_word_pairs
from modulant.lexicon import Lexicon
from tests.wordnets import Synset, write_zip

WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=12)
RATINGS = st.floats(-1e6, 1e6, allow_nan=False)


@pytest.fixture
def banks(tmp_path: Path) -> Lexicon:
    synsets = [
        Synset(("bank",), "sloping land beside a river"),
        Synset(("bank", "Depository"), "a place that keeps money"),
        Synset(("shore",), "sloping land beside a river"),
        Synset(("ice cream",), "a frozen dessert"),
        Synset(("bank",), "tip to one side", "v"),
    ]
    return Lexicon.load(write_zip(synsets, tmp_path / "wordnet.zip"))


@given(
    rows=st.lists(st.tuples(WORDS, WORDS, RATINGS), max_size=8),
    separator=st.sampled_from(["\t", ",", " ", "   ", " , ", "\t "]),
    ending=st.sampled_from(["\n", "\r\n"]),
    noise=st.sampled_from(["", "# a comment", "   ", "  # a comment, of three words"]),
    header=st.booleans(),
    mark=st.sampled_from(["", "\ufeff"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(
    tmp_path: Path,
    rows: list[tuple[str, str, float]],
    separator: str,
    ending: str,
    noise: str,
    header: bool,
    mark: str,
) -> None:
    lines = [noise, *([separator.join(("Word1", "Word2", "Mean"))] if header else [])]
    for a, b, rating in rows:
        lines += [separator.join((a, b, repr(rating))), noise]
    file = tmp_path / "SimVerb.TXT"
    file.write_bytes((mark + ending.join(lines)).encode())
    pairs = read_word_pairs(file)
    assert pairs.name == "simverb"
    assert pairs.words == [(a, b) for a, b, _ in rows]
    assert pairs.ratings.tolist() == [rating for *_, rating in rows]
    assert len(pairs) == len(rows)


def test_words_of_two_words(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text('"ice cream",ice_cream,10\nhot dog,sausage,7.5\n')
    assert read_word_pairs(file).words == [("ice cream", "ice_cream"), ("hot dog", "sausage")]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a\tb\n", 1, "has 2 columns"),
        ("a b 1\n\n# c\na b 1 2\n", 4, "has 4 columns"),
        ("a,,1\n", 1, "has 2 columns"),
        ("a b 1\na b c\n", 2, "the rating 'c' is no finite number"),
        ("w1 w2 rating\nw1 w2 rating\n", 2, "the rating 'rating' is no finite number"),
        ("a b 1\na b nan\n", 2, "the rating 'nan' is no finite number"),
        ("a b 1\na b inf\n", 2, "the rating 'inf' is no finite number"),
    ],
)
def test_a_bad_line(text: str, line: int, said: str, tmp_path: Path) -> None:
    file = tmp_path / "pairs.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"pairs.txt, line {line}.*{said}") as error:
        read_word_pairs(file)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere cannot be read \\(No such file"):
        read_word_pairs(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="cannot be read \\(Is a directory"):
        read_word_pairs(tmp_path)
    (tmp_path / "latin").write_bytes("café\tbar\t1\n".encode("latin-1"))
    with pytest.raises(ValueError, match="latin is not UTF-8 \\(byte 4"):
        read_word_pairs(tmp_path / "latin")


def test_two_files_of_one_name(tmp_path: Path, banks: Lexicon) -> None:
    files = [tmp_path / "pairs.txt", tmp_path / "Pairs.csv"]
    for file in files:
        file.write_text("a b 1\n")
    with pytest.raises(ValueError, match="two files have the name 'pairs'"):
        read_sense_pairs(files, banks)


def test_gensim_is_not_needed_where_a_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modulant.corpus.word_pairs, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--pairs FILE.*pip install 'modulant\[similarity\]'"):
        gensim_word_pairs()


def test_gensims_files() -> None:
    simlex, wordsim = map(read_word_pairs, gensim_word_pairs())
    assert (simlex.name, len(simlex), simlex.words[0], simlex.ratings[0]) == ("simlex999", 999, ("old", "new"), 1.58)
    assert (wordsim.name, len(wordsim), wordsim.words[1]) == ("wordsim353", 353, ("tiger", "cat"))


def rated(*words: tuple[str, str]) -> WordPairs:
    return WordPairs("pairs", list(words), np.arange(float(len(words))))


def test_senses(banks: Lexicon) -> None:
    words = [("bank", "DEPOSITORY"), ("bank", "shore"), ("banks", "shore"), ("shore", "ice_cream"), ("ice cream", "x")]
    pairs = SensePairs.of(rated(*words), banks, senses=0)
    assert (pairs.total, len(pairs), list(pairs.outside)) == (5, 3, ["banks", "x"])
    assert pairs.ratings.tolist() == [0, 1, 3]
    assert [(list(a), list(b)) for a, b in pairs.senses] == [([0, 1, 4], [1]), ([0, 1, 4], [2]), ([2], [3])]
    assert pairs.shared.tolist() == [True, True, False]  # one synset; two of one definition
    assert pairs.untrained([4]).tolist() == [False, False, True]
    assert pairs.untrained([]).all()
    assert len(pairs.distinct_texts) == 4
    first = SensePairs.of(rated(*words), banks, senses=1)
    assert [list(a) for a, _ in first.senses] == [[0], [0], [2]]
    assert first.shared.tolist() == [False, True, False]


def test_too_few_pairs(banks: Lexicon) -> None:
    words = [("bank", "shore"), ("bank", "depository"), *((f"w{i}", "shore") for i in range(5))]
    with pytest.raises(ValueError, match=r"2 of 7 pairs have both words in WordNet; it lacks w0, w1, w2 …; .* needs 3"):
        SensePairs.of(rated(*words), banks)
