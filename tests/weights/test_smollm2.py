"""SmolLM2-135M-Instruct, a real causal model of 30 blocks: attached, generating, training, measured against WordNet."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, LlamaForCausalLM

from modulant.backbones import open_model
from modulant.backbones.loading import RandomEncoder
from modulant.backbones.opening import Backbone
from modulant.backbones.weights import digest_of_weights
from modulant.geometry import masked_mean
from modulant.lexicon import Lexicon
from modulant.metrics import RelationalAlignment, bootstrap_pearson, lift_intervals
from modulant.metrics.functional.intervals import percentile_interval
from modulators import FieldModulator, LerpModulator, Modulator, ModulatorHandle, ResidualStream, attach
from scripts.weights import GGUF

pytestmark = [pytest.mark.weights, pytest.mark.timeout(600)]

PROMPTS = ["The capital of France is", "Water boils at", "A dog is a domesticated animal that"]


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(os.environ["TEST_WEIGHTS"])


@pytest.fixture(scope="module")
def opened(folder: Path) -> Backbone:
    """One for all tests: nothing may be left attached to it."""
    return open_model(str(folder), "lm")


def field(stream: ResidualStream) -> Modulator:
    return FieldModulator(stream, gate="centred", initial_alpha=0.1)


def lerp(stream: ResidualStream) -> Modulator:
    return LerpModulator(stream, initial_alpha=0.01)


def perturbed(kind: Any, stream: ResidualStream) -> Modulator:
    """Every number moved, as by a training."""
    modulator: Modulator = kind(stream)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in modulator.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return modulator


@contextmanager
def attached(opened: Backbone, modulator: Modulator) -> Iterator[ModulatorHandle]:
    handle = attach(opened.model, modulator)
    try:
        yield handle
    finally:
        handle.remove()


def padded_on_the_left(opened: Backbone, texts: Sequence[str]) -> dict[str, Tensor]:
    return dict(opened.tokenizer(list(texts), padding=True, padding_side="left", return_tensors="pt"))


def written(opened: Backbone, use_cache: bool = True) -> Any:
    """What greedy generation writes, with the logits of each step."""
    return opened.model.generate(
        **padded_on_the_left(opened, PROMPTS),
        max_new_tokens=12,
        min_new_tokens=12,
        do_sample=False,
        use_cache=use_cache,
        output_logits=True,
        return_dict_in_generate=True,
    )


def same(one: Any, other: Any) -> bool:
    """Token for token, and each step's logits bit for bit."""
    return torch.equal(one.sequences, other.sequences) and all(map(torch.equal, one.logits, other.logits))


@torch.no_grad()
def test_the_folder_holds_what_the_gguf_file_does(opened: Backbone, folder: Path) -> None:
    """Logits to the bit, and tokens; but for spaces before a digit, which transformers splits otherwise."""
    given = {"pretrained_model_name_or_path": folder.parent, "gguf_file": GGUF}
    direct = LlamaForCausalLM.from_pretrained(**given, dtype=torch.float32).eval()
    batch = padded_on_the_left(opened, PROMPTS)
    assert torch.equal(opened.model(**batch).logits, direct(**batch).logits)
    assert opened.stream == ResidualStream(576, 30, 49_152)
    tokenizer = AutoTokenizer.from_pretrained(**given)
    texts = [*Lexicon.load().definitions[::100], "It's 10 o'clock:\n\tnaïve café, 水 🙂"]
    ids = opened.tokenizer(texts).input_ids
    assert ids == tokenizer(texts).input_ids
    assert opened.tokenizer.batch_decode(ids) == texts
    assert opened.tokenizer.tokenize("at  10") == ["at", "ĠĠ", "1", "0"]


def test_topology_reads_from_the_gguf_file_what_the_folder_holds(folder: Path) -> None:
    """Every number, under the same name: rows of queries and keys are back in their order."""
    assert digest_of_weights(str(folder.parent / GGUF)) == digest_of_weights(str(folder))


@torch.no_grad()
def test_the_weights_are_understood(opened: Backbone) -> None:
    """It knows capitals, and its loss on English is far below that on the same tokens in another order."""
    prompts = [f"The capital of {country} is" for country in ("France", "Italy", "Japan", "Germany")]
    logits = opened.model(**padded_on_the_left(opened, prompts)).logits[:, -1]
    assert opened.tokenizer.batch_decode(logits.argmax(-1)[:, None]) == [" Paris", " Rome", " Tokyo", " Berlin"]
    text = "The dog is a domesticated descendant of the wolf, and was the first species to be tamed by humans."
    [ids] = opened.tokenizer(text, return_tensors="pt").input_ids
    other = ids[torch.randperm(len(ids))]
    loss, shuffled = (opened.model(input_ids=x[None], labels=x[None]).loss.item() for x in (ids, other))
    assert loss < 3.5
    assert shuffled > loss + 3


@torch.no_grad()
def test_off_it_writes_what_the_base_writes(opened: Backbone) -> None:
    base = written(opened)
    assert "Paris" in opened.tokenizer.decode(base.sequences[0])
    with attached(opened, field(opened.stream)) as handle:  # it starts as the identity, and computes
        assert handle.summary().layers == list(range(30))
        assert same(written(opened), base)
    for kind in (field, lerp):
        with attached(opened, perturbed(kind, opened.stream)) as handle:
            assert not same(written(opened), base)
            with handle.disabled():
                assert same(written(opened), base)
            with handle.scaled(0.0):
                assert same(written(opened), base)
    assert same(written(opened), base)


@torch.no_grad()
@pytest.mark.parametrize("kind", [field, lerp])
def test_generation_with_a_cache_is_that_without(opened: Backbone, kind: Any) -> None:
    with attached(opened, perturbed(kind, opened.stream)):
        cached, whole = written(opened), written(opened, use_cache=False)
    assert torch.equal(cached.sequences, whole.sequences)
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(whole.logits), rtol=1e-4, atol=1e-3)


class Noun(NamedTuple):
    """A synset whose most frequent lemma is one token after a space, in its first sense."""

    synset: int
    token: int
    definition: str


@pytest.fixture(scope="module")
def nouns(opened: Backbone) -> list[Noun]:
    """A seeded permutation of all."""
    lexicon = Lexicon.load()
    rows = np.flatnonzero((lexicon.pos == "n") & (lexicon.lemma_senses[lexicon.lemma_starts[:-1]] == 0))
    ids = opened.tokenizer([f" {lexicon.lemmas_of(row)[0]}" for row in rows]).input_ids
    found = [
        Noun(int(row), tokens[0], lexicon.definitions[row])
        for row, tokens in zip(rows, ids, strict=True)
        if len(tokens) == 1
    ]
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))]


@pytest.mark.parametrize(("kind", "rate"), [(field, 0.01), (lerp, 0.03)])
def test_a_modulator_learns_to_name_what_is_defined(
    opened: Backbone, nouns: list[Noun], kind: Any, rate: float
) -> None:
    """Eight steps on 16 definitions each: the loss of other nouns falls, and not only since an answer is a noun."""
    short = [noun for noun in nouns if len(noun.definition) <= 60]
    held_out, trained = short[:64], short[64 : 64 + 8 * 16]
    choices = torch.tensor(sorted(noun.token for noun in nouns))

    def answered(some: Sequence[Noun]) -> tuple[Tensor, Tensor]:
        """Logits of the next token, and which it should be."""
        texts = [f"A word for “{noun.definition}” is:" for noun in some]
        logits = opened.model(**padded_on_the_left(opened, texts), logits_to_keep=1).logits[:, -1]
        return logits, torch.tensor([noun.token for noun in some])

    def losses() -> Tensor:
        """Of the held-out nouns; among nouns alone; and of the nouns of other definitions, among nouns alone."""
        with torch.no_grad():
            logits, nouns_of = answered(held_out)
        among, right = logits[:, choices], torch.searchsorted(choices, nouns_of)
        cases = ((logits, nouns_of), (among, right), (among, right.roll(1)))
        return torch.stack([F.cross_entropy(*case) for case in cases])

    base = losses()
    modulator = kind(opened.stream)
    with attached(opened, modulator) as handle:
        optimizer = torch.optim.AdamW(modulator.parameter_groups(lr=rate, weight_decay=0.0))
        for first in range(0, len(trained), 16):
            optimizer.zero_grad()
            F.cross_entropy(*answered(trained[first : first + 16])).backward()
            optimizer.step()
        assert all(parameter.grad is None for parameter in opened.model.parameters())
        assert all(bool(parameter.grad.isfinite().all()) for parameter in modulator.parameters())
        learned = losses()
        with handle.disabled():
            assert torch.equal(losses(), base)
    fall = (base - learned).tolist()
    assert fall[0] > 2
    assert fall[1] > 1
    assert fall[2] < 0  # frequent nouns alone would make all likelier


def test_its_cosines_follow_wordnet(opened: Backbone, nouns: list[Noun]) -> None:
    """Definitions of 300 nouns, means over their tokens: more than the same architecture with random weights does."""
    some = sorted(nouns[:300], key=lambda noun: len(noun.definition))
    random = RandomEncoder(opened.model.config, 42)
    means: dict[str, list[Tensor]] = {"random": [], "pretrained": []}
    with torch.no_grad():
        for first in range(0, len(some), 50):
            texts = [noun.definition for noun in some[first : first + 50]]
            batch = opened.tokenizer(texts, padding=True, return_tensors="pt")
            for name, read in (("random", random), ("pretrained", opened.encode)):
                hidden = read(batch.input_ids, batch.attention_mask)
                means[name].append(masked_mean(hidden, batch.attention_mask))
    clouds = [torch.cat(parts) for parts in means.values()]
    distances = Lexicon.load().taxonomy.path_distances(np.array([noun.synset for noun in some]))
    part = np.zeros(len(some), dtype=bool)
    metric = RelationalAlignment(distances, part)
    metric.update(clouds[1])
    pearson = float(metric.compute()["pearson"])

    unit = F.normalize(clouds[1].double(), dim=1)
    i, j = np.triu_indices(len(some), 1)
    expected = np.corrcoef((unit @ unit.T).numpy()[i, j], 1 / (1 + distances[i, j].astype(float)))[0, 1]
    assert pearson == pytest.approx(expected, abs=1e-5)

    replicates = bootstrap_pearson(clouds, distances, part)
    interval = percentile_interval(replicates[1, :, 0].numpy())
    lift = lift_intervals(replicates[0], replicates[1])["all"]
    assert pearson == pytest.approx(0.2127, abs=2e-3)
    assert interval is not None
    assert interval[0] > 0
    assert lift[0] > 0
