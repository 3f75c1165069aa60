"""Prompts as batches: those of a list together, those that come one by one by themselves."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset

from datamodules.arguments import STANDARD_INPUT, piped_prompts

_MOST_TYPED = 100_000  # prompts, in one conversation


def asked(prompts: Iterable[str] | None) -> Iterable[str] | None:
    """The prompts, those of standard input as they are piped in; None where none are given.

    Raises:
        ValueError: a person at a terminal would have to be asked, and nothing does.
    """
    if prompts != STANDARD_INPUT:
        return prompts
    texts = piped_prompts()
    if texts is None:
        raise ValueError("data.prompts: at a terminal it is the command line that asks; give a list, or a file")
    return texts


def prompts_loader(
    texts: Iterable[str], batch_size: int, collate: Callable[[list[str]], dict[str, Any]]
) -> DataLoader[Any]:
    """The texts in their order; every process gets all of them. What comes one by one is asked one by one."""
    if isinstance(texts, list):
        return DataLoader(_Prompts(texts), batch_size=batch_size, collate_fn=collate)
    return DataLoader(_Typed(texts), batch_size=1, collate_fn=collate)


class _Prompts(Dataset[str]):
    """Texts as they were asked."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, row: int) -> str:
        return self._texts[row]


class _Typed(IterableDataset[str]):
    """Texts that come when they come.

    It has a length, which is only the most that are ever asked: of a loader without one Lightning takes a batch before
    it hands on the last, and an answer would wait for the next question.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return _MOST_TYPED

    def __iter__(self) -> Iterator[str]:
        return islice(iter(self._texts), _MOST_TYPED)
