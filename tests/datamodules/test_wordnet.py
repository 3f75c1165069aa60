"""The task's DataModule: SPEC's numbers, batches for every rank, prompts, and bad arguments told by their keys."""

import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import WordNetDataModule
from datamodules.arguments import piped_prompts, read_prompts
from modulant.corpus.entries import Corpus
from modulant.corpus.forms import PREFIX
from modulant.lexicon import Lexicon
from tests.wordnets import Synset, write_zip


@pytest.fixture(scope="module")
def data() -> WordNetDataModule:
    data = WordNetDataModule()
    data.setup()
    return data


@pytest.fixture(scope="module")
def small(small_wordnet: str) -> WordNetDataModule:
    data = WordNetDataModule(nltk_data=small_wordnet, matching="all", batch_size=16)
    data.setup()
    return data


@pytest.mark.skipif(
    "MODULANT_T5_TOKENIZER" not in os.environ,
    reason="MODULANT_T5_TOKENIZER names no folder with T5's own tokenizer (spiece.model, from google-t5/t5-small)",
)
def test_t5s_vocabulary_gives_exactly_9362_pairs() -> None:
    data = WordNetDataModule(backbone=os.environ["MODULANT_T5_TOKENIZER"])
    data.setup()
    assert len(data.entries) == 9362
    assert Counter(data.corpus.lexicon.pos[data.entries.synset].tolist()) == {
        "n": 6005,
        "s": 1738,
        "a": 785,
        "v": 538,
        "r": 296,
    }
    assert len(data.population) == 8402
    about = data.describe()
    assert (about["train_entries"], about["held_out_entries"]) == (8426, 936)
    assert round(about["mean_source_tokens"], 1) == 15.1
    assert about["max_source_tokens"] == 93
    assert about["real_token_share"] >= 0.85


def test_texts_of_a_batch(data: WordNetDataModule) -> None:
    batch = next(iter(data.train_dataloader()))
    texts = data.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    lemmas = data.tokenizer.batch_decode(batch["labels"].clamp(min=0), skip_special_tokens=True)
    by_lemma = {entry.lemma: entry for entry in data.entries}
    assert len(texts) == 32
    for text, lemma, ids, mask, labels in zip(
        texts, lemmas, batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True
    ):
        entry = by_lemma[lemma]
        again = data.tokenizer(PREFIX + entry.definition).input_ids
        assert ids[mask.bool()].tolist() == again
        assert text == data.tokenizer.decode(again, skip_special_tokens=True)
        assert labels[labels != -100].tolist() == [entry.token_id, data.tokenizer.eos_token_id]


def test_the_split(data: WordNetDataModule) -> None:
    corpus = data.corpus
    assert len(corpus.held_out) == round(0.1 * len(data.entries))
    both = np.sort(np.concatenate([corpus.trained, corpus.held_out]))
    np.testing.assert_array_equal(both, np.arange(len(data.entries)))


@pytest.mark.parametrize(("split", "leaked"), [("synset", 0), ("entry", 142)])
def test_no_source_is_on_both_sides_of_the_split(data: WordNetDataModule, split: Any, leaked: int) -> None:
    if split != data.split:
        data = WordNetDataModule(split=split)
        data.setup()
    corpus, about = data.corpus, data.describe()
    trained = {corpus.sources[int(i)].tobytes() for i in corpus.trained}
    assert sum(corpus.sources[int(i)].tobytes() in trained for i in corpus.held_out) == leaked
    assert (about["split"], about["held_out_entries"], about["train_entries"]) == (split, 956, 8600)
    synsets = set(data.entries.synset[corpus.held_out].tolist())
    assert (len(synsets & set(data.entries.synset[corpus.trained].tolist())) == 0) == (leaked == 0)
    assert (about["held_out_synsets"] == len(synsets)) == (leaked == 0)


@pytest.mark.parametrize("split", ["synset", "entry"])
def test_a_test_part(data: WordNetDataModule, split: Any) -> None:
    two = Corpus.build(data.corpus.lexicon, data.tokenizer, 0.1, 42, "single_token", split)
    three = WordNetDataModule(split=split, val_fraction=0.05, test_fraction=0.1)
    three.setup()
    corpus, population = three.corpus, three.population
    np.testing.assert_array_equal(corpus.test, two.held_out)
    rows = np.concatenate([corpus.trained, corpus.validation, corpus.test])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(three.entries)))
    parts = [set(three.entries.synset[rows].tolist()) for rows in (corpus.trained, corpus.validation, corpus.test)]
    if split == "synset":
        assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    for value, exclusive in enumerate((parts[0], parts[1] - parts[0], parts[2] - parts[1] - parts[0])):
        assert set(population.synsets[population.part == value].tolist()) == exclusive
    about = three.describe()
    assert (about["validation_entries"], about["test_entries"]) == (len(corpus.validation), len(corpus.test))
    assert about["validation_synsets"] + about["test_synsets"] == about["held_out_synsets"]
    validation, test = (sources(list(loader())) for loader in (three.val_dataloader, three.test_dataloader))
    assert (len(validation), len(test)) == (len(corpus.validation), len(corpus.test))
    assert "test_entries" not in data.describe()
    assert data.corpus.test is data.corpus.validation


def test_mini_was_pretrained_outside_of_both_splits(data: WordNetDataModule) -> None:
    """Span corruption left out the definitions that ``entry`` holds out; those of ``synset`` are among them."""
    entry = Corpus.build(data.corpus.lexicon, data.tokenizer, 0.1, 42, "single_token", "entry")
    definitions = np.array(data.entries.definitions)
    halves = Corpus.build(data.corpus.lexicon, data.tokenizer, 0.05, 42, "single_token", "synset", 0.05)
    for corpus in (data.corpus, halves):
        assert set(definitions[corpus.held_out]) < set(definitions[entry.held_out])


def test_little_padding(data: WordNetDataModule) -> None:
    real = total = 0
    for batch in data.train_dataloader():
        real += int(batch["attention_mask"].sum())
        total += batch["attention_mask"].numel()
    assert real / total >= 0.85
    assert data.describe()["real_token_share"] == pytest.approx(real / total)


def test_population(data: WordNetDataModule) -> None:
    population, entries = data.population, data.entries
    assert len(set(population.synsets.tolist())) == len(population) == len(set(entries.synset.tolist()))
    trained = set(entries.synset[data.corpus.trained].tolist())
    assert not trained & set(population.synsets[population.held_out].tolist())
    assert trained == set(population.synsets[~population.held_out].tolist())
    rows = torch.cat([rows for rows, _, _ in data.population_batches()])
    assert sorted(rows.tolist()) == list(range(len(population)))
    distances = data.path_distances()
    assert distances.shape == (len(population), len(population))
    assert distances is data.path_distances(), "computed once"
    a, b = population.synsets[[5, 900]]
    assert distances[5, 900] == data.corpus.lexicon.taxonomy.path_distance(a, b)


def ranks(data: WordNetDataModule, name: str, world: int) -> list[list[dict[str, Any]]]:
    """The batches of each rank. A DataModule needs of its trainer only what is given here."""
    dealt = []
    for rank in range(world):
        batch_progress = SimpleNamespace(total=SimpleNamespace(processed=0))
        data.trainer = SimpleNamespace(
            global_rank=rank,
            world_size=world,
            ckpt_path=None,
            num_training_batches=float("inf"),
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
            fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=batch_progress)),
            _accelerator_connector=SimpleNamespace(use_distributed_sampler=False),
        )
        loader = getattr(data, name)()
        dealt.append(list(loader))
        assert len(dealt[-1]) == len(loader)
    data.trainer = None
    return dealt


def sources(batches: list[dict[str, Any]]) -> list[bytes]:
    """Each example of some batches that has a target, as bytes without its padding."""
    return [
        ids[mask.bool()].numpy().tobytes() + labels[labels != -100].numpy().tobytes()
        for batch in batches
        for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True)
        if (labels != -100).any()
    ]


def test_each_example_once(small: WordNetDataModule) -> None:
    train, held_out = sources(list(small.train_dataloader())), sources(list(small.val_dataloader()))
    assert len(train) == len(small.corpus.trained)
    assert len(held_out) == len(small.corpus.held_out)
    everything = [
        np.asarray(small.tokenizer(PREFIX + entry.definition, truncation=True, max_length=128).input_ids).tobytes()
        + np.asarray(small.tokenizer(entry.lemma, truncation=True, max_length=16).input_ids).tobytes()
        for entry in small.entries
    ]
    assert Counter(train + held_out) == Counter(everything)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_share_each_batch(small: WordNetDataModule, small_wordnet: str, world: int) -> None:
    """W processes with b examples a batch are given what one process with W·b is given, batch by batch."""
    one = WordNetDataModule(nltk_data=small_wordnet, matching="all", batch_size=16 * world)
    one.setup()
    whole = list(one.train_dataloader())
    per_rank = ranks(small, "train_dataloader", world)
    assert {len(batches) for batches in per_rank} == {len(whole)}
    for batch, *parts in zip(whole, *per_rank, strict=True):
        assert Counter(sources([batch])) == Counter(sources(parts))
        targets = int((batch["labels"] != -100).sum())
        assert {part["weight"] for part in parts} == {world / targets}
        assert max(len(part["labels"]) for part in parts) - min(len(part["labels"]) for part in parts) <= 1
    assert all("weight" not in batch for batch in whole)


def test_a_last_batch_that_does_not_go_round(small_wordnet: str) -> None:
    """The last batch is one example, and all processes but one get one without a target for it."""
    data = WordNetDataModule(nltk_data=small_wordnet, matching="all", batch_size=1)
    data.setup()
    n = len(data.corpus.trained)
    world, data.batch_size = next((w, size) for w in (2, 3, 5) for size in range(3, n) if n % (w * size) == 1)
    per_rank = ranks(data, "train_dataloader", world)
    empty = [[not bool((batch["labels"] != -100).any()) for batch in batches] for batches in per_rank]
    assert [sum(some) for some in empty] == [0] + [1] * (world - 1)
    assert all(len(batch["input_ids"]) for batches in per_rank for batch in batches)


@pytest.mark.parametrize("world", [2, 3, 20])
def test_validation_is_dealt_whole_and_unpadded(small: WordNetDataModule, world: int) -> None:
    per_rank = ranks(small, "val_dataloader", world)
    together = Counter(sources([batch for batches in per_rank for batch in batches]))
    assert together == Counter(sources(list(small.val_dataloader())))
    assert len({len(batches) for batches in per_rank}) == 1, "hooks and collectives are called once a batch"
    # trainer.limit_val_batches counts a process's batches: of W with b each, the entries of one with W·b.
    first = Counter(sources([batch for batches in per_rank for batch in batches[:1]]))
    assert first == Counter(sources(list(small.val_dataloader())[:world]))


def test_a_part_of_the_held_out_entries_has_all_lengths(small: WordNetDataModule, small_wordnet: str) -> None:
    """Batches are sorted by length: the first of them would be the shortest definitions."""

    def first(data: WordNetDataModule, world: int, n: int) -> list[dict[str, Any]]:
        parts = []
        for rank in range(world):
            strategy = SimpleNamespace(root_device=torch.device("cpu"))
            limits = {"limit_val_batches": n, "limit_test_batches": n}
            data.trainer = SimpleNamespace(global_rank=rank, world_size=world, strategy=strategy, **limits)
            parts += list(data.val_dataloader())[:n]
            assert sources(parts[-n:]) == sources(list(data.test_dataloader())[:n])
        data.trainer = None
        return parts

    lengths = small.corpus.sources.lengths[small.corpus.held_out]
    part = first(small, 1, 6)
    found = [int(length) for batch in part for length in batch["attention_mask"].sum(1)]
    assert max(found) > np.median(lengths)
    assert abs(np.mean(found) - lengths.mean()) < 0.25 * lengths.mean()
    twice = WordNetDataModule(nltk_data=small_wordnet, matching="all", batch_size=32)
    twice.setup()
    assert Counter(sources(first(small, 2, 3))) == Counter(sources(first(twice, 1, 3)))


def test_matching_all_keeps_lemmas_of_any_length(small: WordNetDataModule, small_wordnet: str) -> None:
    lexicon = Lexicon.load(small_wordnet)
    expected = [
        (lemma, lexicon.names[i])
        for i in range(len(lexicon))
        if len(lexicon.definitions[i]) > 10
        for lemma in lexicon.lemmas_of(i)
    ]
    assert [(entry.lemma, entry.synset) for entry in small.entries] == expected
    assert {len(small.corpus.targets[i]) for i in range(len(small.entries))} > {2, 3, 4}


def test_workers_deal_the_same(small: WordNetDataModule, small_wordnet: str) -> None:
    other = WordNetDataModule(nltk_data=small_wordnet, matching="all", batch_size=16, num_workers=1)
    other.setup()
    for one, two in zip(small.train_dataloader(), other.train_dataloader(), strict=True):
        assert all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(two[key])) for key in one)


def prompts_of(data: WordNetDataModule) -> list[str]:
    return [prompt for batch in data.predict_dataloader() for prompt in batch["prompts"]]


def test_prompts(small_wordnet: str, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a tame animal\n\n  summarize: a large building  \nein Gebäude\n", encoding="utf-8")
    data = WordNetDataModule(nltk_data=small_wordnet, prompts=str(file), batch_size=2)
    data.setup()
    assert prompts_of(data) == ["a tame animal", "summarize: a large building", "ein Gebäude"]
    first = next(iter(data.predict_dataloader()))
    texts = data.tokenizer.batch_decode(first["input_ids"], skip_special_tokens=True)
    assert texts == ["summarize: a tame animal", "summarize: a large building"]
    assert first["attention_mask"].sum() == sum(len(data.tokenizer(text).input_ids) for text in texts)


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_a_prompt_is_a_line(ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Unicode calls a break within it; a byte order mark is no part of the first."""
    expected = ["a\u2028tame animal", "a\flarge\x85building", "a \x1c\vthing"]
    (tmp_path / "prompts.txt").write_bytes(("\ufeff" + ends.join(expected) + ends).encode())
    assert read_prompts(str(tmp_path / "prompts.txt")) == expected
    with (tmp_path / "prompts.txt").open(encoding="utf-8") as piped:
        monkeypatch.setattr("sys.stdin", piped)
        assert piped_prompts() == expected


def test_without_prompts_the_held_out_definitions_are_asked(small: WordNetDataModule) -> None:
    definitions = small.entries.definitions
    assert prompts_of(small) == [definitions[i] for i in small.corpus.held_out]


def test_prompts_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"Geb\xe4ude\n")
    for prompts, message in (
        (str(tmp_path / "nowhere.txt"), "nowhere.txt cannot be read"),
        (str(tmp_path / "empty.txt"), "there is no prompt in it"),
        (str(tmp_path / "latin.txt"), "latin.txt is no text in UTF-8"),
        ([], "there is no prompt in it"),
        ([""], "prompt 1 of 1 is empty"),
        (["a dog", " \t"], "prompt 2 of 2 is empty"),
    ):
        with pytest.raises(ValueError, match=rf"^data\.prompts: .*{message}"):
            WordNetDataModule(prompts=prompts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be an integer of at least 1"),
        ({"val_fraction": 0.0}, "val_fraction is 0.0; it must be a number between 0 and 1"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0; it must be a number between 0 and 1"),
        ({"test_fraction": 1.0}, "test_fraction is 1.0; it must be a number of at least 0 and below 1"),
        ({"test_fraction": 0.9}, "data.val_fraction is 0.1 and data.test_fraction 0.9; their sum must be below 1"),
        ({"split": "lemma"}, "split is 'lemma'; it must be synset or entry"),
        ({"seed": -1}, "seed is -1; it must be an integer of at least 0"),
        ({"num_workers": -1}, "num_workers is -1; it must be an integer of at least 0"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WordNetDataModule(**arguments)


def test_what_only_setup_can_know(small_wordnet: str, tmp_path: Path) -> None:
    for arguments, message in (
        ({"matching": "some"}, "matching is 'some'; it must be single_token or all"),
        ({"backbone": str(tmp_path)}, "model.backbone: .* has no readable tokenizer"),
        ({"val_fraction": 0.9999}, "data.val_fraction: 0.9999 leaves none of .* entries to train on"),
        (
            {"val_fraction": 0.5, "test_fraction": 0.4999},
            "data.val_fraction: 0.5 with data.test_fraction: 0.4999 leaves none of .* entries to train on",
        ),
    ):
        with pytest.raises(ValueError, match=message) as error:
            WordNetDataModule(**{"nltk_data": small_wordnet, **arguments}).setup()
        assert "\n" not in str(error.value)


def test_an_empty_match(tmp_path: Path) -> None:
    words = [Synset((f"xqzv{i}jjw",), "a word that nobody knows") for i in range(3)]
    data = WordNetDataModule(nltk_data=str(write_zip(words, tmp_path / "wordnet.zip")))
    with pytest.raises(ValueError, match=r"0 lemmas of WordNet are one token .* \(or use data.matching: all\)"):
        data.setup()
