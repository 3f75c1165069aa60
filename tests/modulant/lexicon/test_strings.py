"""Strings in two arrays are a sequence of strings like a list."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modulant.lexicon.strings import Strings

texts = st.lists(st.text())


@given(texts, st.integers(-5, 5), st.integers(-5, 5))
@settings(max_examples=30)
def test_like_a_list(strings: list[str], start: int, stop: int) -> None:
    packed = Strings.of(strings)
    assert list(packed) == strings
    assert [packed[i] for i in range(-len(strings), len(strings))] == strings + strings
    assert packed[start:stop] == strings[start:stop]


@given(texts)
@settings(max_examples=10)
def test_an_index_outside_raises(strings: list[str]) -> None:
    packed = Strings.of(strings)
    for index in (len(strings), -len(strings) - 1):
        with pytest.raises(IndexError):
            packed[index]
