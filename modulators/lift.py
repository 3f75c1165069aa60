"""The lift of a loaded model in one call: the figures of `train.py validate`, without Lightning's trainer."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from modulant import metrics
from modulant.backbones.families import parts_of
from modulant.corpus.entries import Corpus
from modulant.corpus.forms import SourceForm, source_form
from modulant.lexicon import Lexicon
from modulant.lexicon.entries import SplitBy
from modulant.metrics import EntryRepresentations
from modulators.hooks import ModulatorHandle


def relational_lift(
    model: Any,
    tokenizer: Any,
    handle: ModulatorHandle | None = None,
    *,
    bootstrap: int = 1000,
    val_fraction: float = 0.1,
    seed: int = 42,
    nltk_data: str | None = None,
    split: SplitBy = "synset",
    test_fraction: float = 0.0,
) -> dict[str, float]:
    """How much a modulator changes the agreement of the encoder's cosines with WordNet, over all pairs of synsets.

    Shows a progress bar on a terminal. On `mini` it takes a minute on two CPU cores, most of it the bootstrap.

    Args:
        model: a T5, another encoder or a causal model in eval mode, with a modulator attached.
        tokenizer: the model's, loaded from a folder or a hub id: its single-token lemmas are the population.
        handle: what `attach` returned; None: `model.modulation`, which `load_modulated` sets.
        bootstrap: replicates behind the 95% interval of the Pearson lift; 0 leaves it out.
        val_fraction: share of the entries that is held out; with the `seed` of the training, the same ones as then.
        seed: seed of the split.
        nltk_data: a folder with a WordNet other than the bundled one.
        split: what is held out whole, as ``data.split`` of the training; of runs without that key it was ``entry``.
        test_fraction: share of the entries in the test part, as ``data.test_fraction`` of the training; 0: none.

    Returns:
        ``pearson``, ``pearson_lift``, ``pearson_lift_low`` and ``_high``, ``spearman``, ``gradient``, … of all pairs;
        the same behind ``train/``, ``mixed/`` and ``held_out/``; with a test part, whose pairs ``held_out/`` then is
        of, also behind ``validation/``; Pearson and Spearman of noun–noun and verb–verb pairs behind ``nouns/``,
        ``held_out/nouns/``, …; the original encoder's behind ``original/``; and ``preservation``. A run's metrics have
        the same names behind ``relational/``. What cannot be computed, as a correlation of too few pairs, is left out.

    Raises:
        ValueError: no handle, one that is disabled or removed, a model in training mode, a tokenizer that was not
            loaded from anywhere, no such WordNet, or representations that are not finite.
    """
    handle = _checked(model, tokenizer, handle)
    lexicon = Lexicon.load(nltk_data)
    form = source_form(model.config, tokenizer)
    corpus = Corpus.build(lexicon, tokenizer, val_fraction, seed, "single_token", split, test_fraction, form)
    part, pos = corpus.population.part, corpus.pos
    batches, distances = corpus.evaluation_batches(), corpus.path_distances
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:

        def bar(label: str, total: int) -> Callable[[], None]:
            task = progress.add_task(label, total=total)
            return lambda: progress.advance(task)

        with handle.disabled():
            original = _encode(model, form, batches, len(part), bar("the original encoder", len(batches)))
        modulated = _encode(model, form, batches, len(part), bar("the modulated encoder", len(batches)))
        alignment = metrics.RelationalAlignment(distances, part, pos=pos).to(original.device)
        before, after = (_figures(alignment, points) for points in (original, modulated))
        found = after | metrics.lifts(after, before) | {f"original/{key}": value for key, value in before.items()}
        found["preservation"] = metrics.preservation(original, modulated).item()
        if bootstrap:
            advance = bar("bootstrap", metrics.bootstrap_steps(part, pos))
            replicates = metrics.bootstrap_pearson(
                [original, modulated], distances, part, bootstrap, advance=advance, pos=pos
            )
            columns = metrics.bootstrap_columns(part, pos)
            found |= metrics.interval_figures(metrics.lift_intervals(replicates[0], replicates[1], columns))
    return found


def _checked(model: Any, tokenizer: Any, handle: ModulatorHandle | None) -> ModulatorHandle:
    handle = handle or getattr(model, "modulation", None)
    if handle is None:
        raise ValueError("relational_lift: no modulator is attached; give the handle that attach has returned")
    if (state := handle.summary().state) != "active":
        raise ValueError(f"relational_lift: the modulator is {state}, so there is no lift to be measured")
    if model.training:
        raise ValueError("relational_lift: the model is in training mode, where dropout is noise; call model.eval()")
    if not getattr(tokenizer, "name_or_path", ""):
        raise ValueError("relational_lift: the tokenizer has no name_or_path; load it from a folder or a hub id")
    return handle


@torch.no_grad()
def _encode(
    model: Any,
    form: SourceForm,
    batches: Sequence[tuple[Tensor, Tensor, Tensor]],
    n: int,
    advance: Callable[[], None],
) -> Tensor:
    """Masked means of definitions' last hidden states, (n, D) in fp32."""
    device = next(model.parameters()).device
    encoder = parts_of(model)
    cacheless = {"use_cache": False} if encoder.family.causal else {}

    def read(ids: Tensor, mask: Tensor) -> Tensor:
        last: Tensor = encoder.stack(input_ids=ids, attention_mask=mask, **cacheless).last_hidden_state
        return last

    hidden = form.reads(read)
    metric = EntryRepresentations(n, encoder.shape.d_model).to(device)
    for rows, input_ids, attention_mask in batches:
        mask = attention_mask.to(device)
        metric.update(rows, hidden(input_ids.to(device), mask), mask)
        advance()
    points: Tensor = metric.compute()
    if not bool(points.isfinite().all()):
        raise ValueError("relational_lift: representations are not finite; has the modulator's training broken down?")
    return points if device.type != "mps" else points.cpu()  # Apple's GPU has no fp64


def _figures(alignment: metrics.RelationalAlignment, points: Tensor) -> dict[str, float]:
    alignment.reset()
    alignment.update(points)
    values = {key: float(value) for key, value in alignment.compute().items()}
    return {key: value for key, value in values.items() if math.isfinite(value)}
