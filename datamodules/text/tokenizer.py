"""Tokenizers of text: bytes, a byte-level BPE trained here, or a pretrained byte-level one; one artifact for all.

An artifact is a folder: ``tokenizer.json`` (of the package tokenizers), ``tokenizer_config.json``, by which
transformers' ``AutoTokenizer`` reads the folder too, and ``counts.json``, the counts of the training part's tokens.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from datamodules.arguments import BPE, BYTES, END_OF_TEXT
from modulant.backbones.tokenizers import load_tokenizer
from modulant.corpus.ragged import IntArray
from modulant.storage import write_whole

TOKENIZER, CONFIG, COUNTS = "tokenizer.json", "tokenizer_config.json", "counts.json"
SMOOTHING = 0.5  # added to each count
_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>")  # where no tokenizer_config.json names one


def _alphabet() -> dict[str, int]:
    """Character → byte, of the alphabet in which byte-level tokenizers write bytes (GPT-2's).

    Printable characters of Latin-1 stand for themselves, all others for the characters from 256 on.
    """
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE = _alphabet()


@dataclass(frozen=True, eq=False)
class TextTokenizer:
    """A byte-level tokenizer: text → ids, ids → the very bytes, and how often each id is in the training part.

    Attributes:
        backend: of the package tokenizers.
        end: the id between documents; of no bytes, and never the id of anything in a text.
        counts: of the training part's tokens, (V,); None before it is counted.

    Raises:
        ValueError: it is no byte-level tokenizer: what it encodes could not be counted in bytes.
    """

    backend: Tokenizer
    end: int
    counts: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        self.backend.encode_special_tokens = True  # a mark that a text holds is text
        self.backend.no_padding()
        self.backend.no_truncation()
        if not _is_byte_level(json.loads(self.backend.to_str()).get("decoder")):
            raise ValueError("it is no byte-level tokenizer, as GPT-2's is: its tokens cannot be counted in bytes")

    @classmethod
    def of_bytes(cls) -> "TextTokenizer":
        """The id of a byte is the byte; the mark between documents is 256."""
        alphabet = {character: byte for character, byte in sorted(_BYTE.items(), key=lambda item: item[1])}
        return cls._of(Tokenizer(models.BPE(vocab=alphabet, merges=[])), use_regex=False)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "TextTokenizer":
        """A byte-level BPE of at most ``vocab_size`` ids: 256 bytes, merges by frequency, and the mark, which is last.

        Of little text there are fewer merges.
        """
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1, show_progress=False, initial_alphabet=sorted(_BYTE), special_tokens=[]
        )
        backend.train_from_iterator(texts, trainer)
        return cls._of(backend, use_regex=True)

    @classmethod
    def _of(cls, backend: Tokenizer, use_regex: bool) -> "TextTokenizer":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
        end = backend.token_to_id(END_OF_TEXT)
        assert end is not None, "added just now"
        return cls(backend, end)

    @classmethod
    def pretrained(cls, name: str) -> "TextTokenizer":
        """That of a folder (a ``tokenizer.json`` in it suffices) or of a hub id, without counts.

        Raises:
            ValueError: there is none, it is no byte-level one, or no token of it ends a text.
        """
        file = Path(name).expanduser() / TOKENIZER
        try:
            if file.is_file():
                backend = _read(file)
                end = _end_in(file.with_name(CONFIG), backend)
            else:
                loaded = load_tokenizer(name, key="data.tokenizer")
                found = getattr(loaded, "backend_tokenizer", None)
                if not isinstance(found, Tokenizer):
                    raise ValueError("it has no tokenizer.json")
                backend, end = found, loaded.eos_token
            if end is None or (number := backend.token_to_id(end)) is None:
                raise ValueError("none of its tokens ends a text; tokenizer_config.json names one as eos_token")
            return cls(backend, number)
        except ValueError as error:
            said = str(error)
            raise ValueError(said if said.startswith("data.") else f"data.tokenizer: {name!r}: {said}") from error

    @classmethod
    def load(cls, folder: Path) -> "TextTokenizer":
        """An artifact, with its counts where it has them.

        Raises:
            ValueError: a file is missing, damaged, or of another tokenizer.
        """
        found = cls.pretrained(str(folder))
        file = folder / COUNTS
        if not file.is_file():
            return found
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
            counts = np.asarray(held["counts"], dtype=np.int64)
            sha256 = held["tokenizer_sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is damaged ({error})") from error
        if sha256 != found.sha256 or counts.shape != (found.vocab_size,):
            raise ValueError(f"{file} counts the tokens of another tokenizer than {TOKENIZER} beside it")
        return found.with_counts(counts)

    def with_counts(self, counts: npt.NDArray[np.int64]) -> "TextTokenizer":
        """The same with counts, (V,)."""
        return replace(self, counts=counts)

    def save(self, folder: Path) -> None:
        """Write the artifact into a folder that exists.

        Raises:
            StorageError: the disk cannot store it.
        """
        write_whole(folder / TOKENIZER, self._json)
        # For transformers, which else reads a mark in a text as the mark between texts.
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": self.backend.id_to_token(self.end),
            "clean_up_tokenization_spaces": False,
            "split_special_tokens": True,
        }
        write_whole(folder / CONFIG, json.dumps(config, indent=1, ensure_ascii=False) + "\n")
        if self.counts is not None:
            held = {"tokenizer_sha256": self.sha256, "smoothing": SMOOTHING, "counts": self.counts.tolist()}
            write_whole(folder / COUNTS, json.dumps(held) + "\n")

    @cached_property
    def _json(self) -> str:
        return self.backend.to_str(pretty=True) + "\n"

    @cached_property
    def sha256(self) -> str:
        """Of ``tokenizer.json``, as it is saved: what tells this tokenizer from others."""
        return hashlib.sha256(f"{self.end}\n{self._json}".encode()).hexdigest()

    @cached_property
    def vocab_size(self) -> int:
        """Number of ids, V."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def ranks(self) -> npt.NDArray[np.int64]:
        """Rank of each id by its smoothed count in the training part, (V,): 0 is the most frequent; ties by id."""
        assert self.counts is not None, "counted with the training part"
        ranks = np.empty(self.vocab_size, dtype=np.int64)
        ranks[np.argsort(-self.counts, kind="stable")] = np.arange(self.vocab_size)
        return ranks

    @cached_property
    def frequencies(self) -> npt.NDArray[np.float64]:
        """(count + ½) / (N + V/2) of each id, (V,): never 0."""
        assert self.counts is not None, "counted with the training part"
        smoothed = self.counts + SMOOTHING
        return smoothed / smoothed.sum()

    @cached_property
    def _bytes(self) -> list[bytes]:
        """What each id stands for; nothing for special tokens, and where an id is none."""
        found = [b""] * self.vocab_size
        added = self.backend.get_added_tokens_decoder()
        for token, i in self.backend.get_vocab(with_added_tokens=True).items():
            if i in added:
                found[i] = b"" if added[i].special else added[i].content.encode()
            elif all(character in _BYTE for character in token):
                found[i] = bytes(_BYTE[character] for character in token)
        return found

    @cached_property
    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """Number of bytes of text that each id stands for, (V,); 0 of the mark between documents."""
        return np.array([len(token) for token in self._bytes])

    @cached_property
    def _is_bytes(self) -> bool:
        return self._bytes[:256] == [bytes([byte]) for byte in range(256)] and self.vocab_size == 257

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """Ids of a text, (n,); nothing is put before or behind it."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        """Ids of each text."""
        if self._is_bytes:
            return [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64) for text in texts]
        encoded = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, dtype=np.int64) for one in encoded]

    def decode_bytes(self, ids: IntArray | Sequence[int]) -> bytes:
        """The bytes that ids stand for: of ``encode(text)`` those of the text."""
        return b"".join(self._bytes[int(i)] for i in ids)

    def decode(self, ids: IntArray | Sequence[int]) -> str:
        """The text of ids; bytes that are no UTF-8, as where a character is cut, become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")


def make_tokenizer(name: str, vocab_size: int, training_texts: Iterator[str]) -> TextTokenizer:
    """The tokenizer that a configuration names: ``bytes``, ``bpe``, or a pretrained one.

    Args:
        training_texts: documents of the training part, which ``bpe`` alone reads.
    """
    if name == BYTES:
        return TextTokenizer.of_bytes()
    return TextTokenizer.train(training_texts, vocab_size) if name == BPE else TextTokenizer.pretrained(name)


def _read(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises Exception itself
        raise ValueError(f"{TOKENIZER} cannot be read ({str(error).splitlines()[0]})") from error


def _end_in(config: Path, backend: Tokenizer) -> str | None:
    """The token that ends a text, by a ``tokenizer_config.json``, or by its usual names."""
    try:
        named = json.loads(config.read_text(encoding="utf-8")).get("eos_token") if config.is_file() else None
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{CONFIG} cannot be read ({error})") from error
    if isinstance(named, dict):
        named = named.get("content")
    return named or next((token for token in _ENDS if backend.token_to_id(token) is not None), None)


def _is_byte_level(decoder: Any) -> bool:
    """Whether a decoder, as in ``tokenizer.json``, is ByteLevel, or a sequence with it."""
    if not isinstance(decoder, dict):
        return False
    return decoder.get("type") == "ByteLevel" or any(map(_is_byte_level, decoder.get("decoders", ())))
