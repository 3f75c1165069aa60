"""What `mini` is trained on holds nothing of the held-out entries, and no pair of the task."""

from typing import Any

import numpy as np
import pytest
import torch

from datamodules import GlossDataModule, WordNetDataModule
from modulant.assets import MINI
from modulant.corpus.batching import batches_per_epoch


@pytest.fixture(scope="module")
def data(small_wordnet: str) -> GlossDataModule:
    data = GlossDataModule(tokenizer=str(MINI), batch_size=64, val_fraction=0.3, nltk_data=small_wordnet)
    data.setup()
    return data


def decoded(data: GlossDataModule, ids: Any) -> str:
    return data.tokenizer.decode(ids, skip_special_tokens=True)


def test_held_out_means_what_the_task_means(data: GlossDataModule, small_wordnet: str) -> None:
    task = WordNetDataModule(nltk_data=small_wordnet, val_fraction=0.3, split="entry")
    task.setup()
    assert list(task.entries) == list(data.entries)
    np.testing.assert_array_equal(task.corpus.held_out, data.corpus.held_out)
    assert len(task.corpus.held_out) > 20


def test_no_gloss_of_a_held_out_entry(data: GlossDataModule) -> None:
    hidden = set(data.entries.synset[data.corpus.held_out].tolist())
    assert not hidden & set(data.span_synsets.tolist())
    assert set(data.val_span_synsets.tolist()) <= hidden
    definitions = {data.entries[int(i)].definition for i in data.corpus.held_out}
    lexicon = data.corpus.lexicon
    assert not definitions & {lexicon.definitions[int(i)] for i in data.span_synsets}
    # Nearly all the rest is there; what lacks is longer than a source may be, or one token.
    assert len(data.spans) > len(lexicon) - len(hidden) - 20
    for i in (0, 100, len(data.spans) - 1):
        synset = int(data.span_synsets[i])
        text = "; ".join([lexicon.definitions[synset], *lexicon.examples_of(synset)])
        assert data.spans[i].tolist() == data.tokenizer(text, add_special_tokens=False).input_ids


def test_no_pair_of_a_kept_synset(data: GlossDataModule) -> None:
    kept = set(data.entries.synset.tolist())
    assert not kept & set(data.pair_synsets.tolist())
    lexicon, (sources, targets) = data.corpus.lexicon, data.pairs
    assert not set(data.entries.definitions) & {lexicon.definitions[int(i)] for i in data.pair_synsets}
    assert len(data.pair_synsets) == len(sources) == len(targets) > 1500
    for i in (0, 700, len(targets) - 1):
        synset = int(data.pair_synsets[i])
        assert decoded(data, targets[i]) in lexicon.lemmas_of(synset)
        expected = data.tokenizer(f"summarize: {lexicon.definitions[synset]}", truncation=True, max_length=128)
        assert sources[i].tolist() == expected.input_ids


def test_an_epoch_holds_every_text_once(data: GlossDataModule) -> None:
    recipes = data._epoch_batches(3)
    spans = [rows for rows, seeds in recipes if seeds is not None]
    pairs = [rows for rows, seeds in recipes if seeds is None]
    assert sorted(np.concatenate(spans).tolist()) == list(range(len(data.spans)))
    assert len(spans) == len(pairs) == batches_per_epoch(len(data.spans), 64), "pair_fraction is one half"
    assert len(np.unique(np.concatenate(pairs))) == sum(map(len, pairs)), "no pair twice while there are enough"
    assert len(recipes) == len(data.train_dataloader())
    kinds = [seeds is None for _, seeds in recipes]
    assert kinds != sorted(kinds), "spans and pairs take turns at random"


def test_epochs_differ_and_are_reproducible(data: GlossDataModule) -> None:
    def epoch(number: int) -> list[dict[str, torch.Tensor]]:
        return [data.cook(recipe) for recipe in data._epoch_batches(number)]

    def texts(batches: list[dict[str, torch.Tensor]]) -> set[bytes]:
        return {row.numpy().tobytes() for batch in batches for row in batch["labels"]}

    first, again, second = epoch(0), epoch(0), epoch(1)
    for one, two in zip(first, again, strict=True):
        assert all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(two[key])) for key in one)
    assert len(texts(first) & texts(second)) < 0.7 * len(texts(first)), "masks are drawn anew"
    assert any(one["input_ids"].shape != two["input_ids"].shape for one, two in zip(first, second, strict=True))


def test_processes_share_each_batch(data: GlossDataModule, small_wordnet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes with 64 texts a batch are given what one with 192 is given, masks and all."""
    one = GlossDataModule(tokenizer="mini", batch_size=192, val_fraction=0.3, nltk_data=small_wordnet)
    one.setup()
    recipes = [rows.tolist() for rows, _ in one._epoch_batches(2)]
    for recipe in one._epoch_batches(2)[:6]:
        whole, parts = one.cook(recipe), []
        for rank in range(3):
            monkeypatch.setattr(GlossDataModule, "_rank_and_world_size", (rank, 3))
            assert [rows.tolist() for rows, _ in data._epoch_batches(2)] == recipes
            parts.append(data.cook(recipe))
        monkeypatch.undo()
        assert {part["weight"] for part in parts} == {3 / int((whole["labels"] != -100).sum())}
        for key in ("input_ids", "labels"):
            dealt = [None] * len(whole[key])
            for rank, part in enumerate(parts):
                dealt[rank::3] = part[key]
            for row, found in zip(whole[key], dealt, strict=True):
                assert torch.equal(row[: len(found)], found)
                assert len(set(row[len(found) :].tolist())) <= 1, "the rest is padding"


def test_a_batch_of_spans(data: GlossDataModule) -> None:
    batch = data.batch_of_spans(data.spans.rows(np.arange(8)), np.random.default_rng(0))
    sentinel = data.tokenizer.convert_tokens_to_ids("<extra_id_0>")
    for i in range(8):
        source = batch["input_ids"][i][batch["attention_mask"][i].bool()].tolist()
        target = batch["labels"][i][batch["labels"][i] != -100].tolist()
        assert source[-1] == target[-1] == data.tokenizer.eos_token_id
        assert target[0] == sentinel
        assert sentinel in source
        kept = [token for token in source + target if token < sentinel - 99 and token != 1]
        assert sorted(kept) == sorted(data.spans[i].tolist())


def test_validation_is_the_same_each_time(data: GlossDataModule) -> None:
    for one, two in zip(data.val_dataloader(), data.val_dataloader(), strict=True):
        for first, second in zip(one, two, strict=True):
            assert all(torch.equal(torch.as_tensor(first[key]), torch.as_tensor(second[key])) for key in first)
    spans, pairs = (list(loader) for loader in data.val_dataloader())
    assert sum(len(batch["labels"]) for batch in spans) == len(data.val_spans)
    assert sum(len(batch["labels"]) for batch in pairs) == len(data.corpus.held_out)


def test_few_pairs_are_drawn_again(data: GlossDataModule) -> None:
    many = GlossDataModule(tokenizer="mini", batch_size=64, pair_fraction=0.9)
    many._corpus, many.spans, many.pairs = data._corpus, data.spans, data.pairs  # what setup() would make again
    pairs = [rows for rows, seeds in many._epoch_batches(0) if seeds is None]
    assert len(pairs) == 9 * batches_per_epoch(len(data.spans), 64)
    counts = np.bincount(np.concatenate(pairs), minlength=len(data.pairs[0]))
    assert counts.max() - counts.min() <= 1
    none = GlossDataModule(tokenizer="mini", batch_size=64, pair_fraction=0.0)
    none.spans, none.pairs = data.spans, data.pairs
    assert all(seeds is not None for _, seeds in none._epoch_batches(0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pair_fraction": 1.0}, "pair_fraction is 1.0; it must be a number of at least 0 and below 1"),
        ({"pair_fraction": -0.1}, "pair_fraction is"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"val_fraction": 1.5}, "val_fraction is"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GlossDataModule(**arguments)


def test_a_tokenizer_that_is_not_there(small_wordnet: str, tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=r"data\.tokenizer: .* has no readable tokenizer"):
        GlossDataModule(tokenizer=str(tmp_path), nltk_data=small_wordnet).setup()
