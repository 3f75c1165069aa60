"""Representations of WordNet's definitions by any encoder: a run of ours, a T5, or another encoder of Hugging Face's.

A representation is the mean over unpadded tokens, special tokens among them, of the last hidden state, in fp32. Each
encoder reads the definitions with its own tokenizer. Which synsets are measured, and which of them count as held out,
follows from another tokenizer (`probes.alignment.populations`), so that encoders can be compared on the same words.
"""

import inspect
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from modulant.assets import resolve_backbone
from modulant.backbones.families import parts_of
from modulant.backbones.hub import check_reachable
from modulant.backbones.loading import RandomEncoder, encoder_of, freeze
from modulant.backbones.opening import open_model
from modulant.backbones.tokenizers import first_line
from modulant.corpus.batching import sorted_batches
from modulant.corpus.entries import EVALUATION_BATCH
from modulant.corpus.forms import Hidden, SourceForm, source_form
from modulant.corpus.ragged import Ragged, padded_inputs
from modulators import load_modulated
from modulators.artifact.files import CONFIG
from probes.options import with_bar

RANDOM_SEED = 42
_RIGHT = "name 'mini', a folder with a config.json, a hub id (google-t5/t5-small), or a run of train.py"
# An encoder is used without these: heads of another task, and the decoder of a T5 that was saved without one.
_NOT_NEEDED = ("decoder.", "pooler.")

_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")  # PEFT's names, of a run with LoRA or IA³
_HEADS = {"CAUSAL_LM": "lm", "FEATURE_EXTRACTION": None}  # PEFT's task → the head that the adapter's model has


class Handle(Protocol):
    """Of whatever changes an encoder."""

    def disabled(self) -> AbstractContextManager[Any]: ...


@dataclass(frozen=True, eq=False)
class Encoder:
    """A text encoder with its own tokenizer, on the device where it will compute.

    Attributes:
        name: as on the command line.
        form: how it reads a text.
        model: takes input_ids and attention_mask, returns a last_hidden_state.
        modulation: the handle of a modulator that is attached, or of an adapter.
    """

    name: str
    tokenizer: Any
    form: SourceForm
    config: Any
    model: nn.Module
    modulation: Handle | None = None

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def tokens(self, texts: list[str]) -> Ragged:
        """The texts as this encoder reads them: prefix, special tokens, cut where a source text of the task is.

        Raises:
            ValueError: the tokenizer has tokens that the model lacks.
        """
        tokens = Ragged.of(self.form.sources(self.tokenizer, texts))
        words = cast(Any, self.model).get_input_embeddings().num_embeddings
        if tokens.tokens.size and int(tokens.tokens.max()) >= words:
            raise ValueError(
                f"--model: the tokenizer of {self.name!r} gives the token {tokens.tokens.max()}, and the model has "
                f"{words}; it needs the tokenizer that it was trained with"
            )
        return tokens

    def hidden(self, cloud: str) -> Hidden:
        """The function behind a cloud: ``encoder``, ``modulated``, ``original``, ``static`` or ``random``."""
        if cloud == "static":
            embeddings = cast(Any, self.model).get_input_embeddings()
            return lambda ids, mask: embeddings(ids)
        if cloud == "random":
            return self.form.reads(RandomEncoder(self.config, RANDOM_SEED).to(self.device))
        context = self.modulation.disabled if cloud == "original" and self.modulation else nullcontext

        def read(ids: Tensor, mask: Tensor) -> Tensor:
            with context():
                return cast(Any, self.model)(input_ids=ids, attention_mask=mask).last_hidden_state

        return self.form.reads(read)

    def clouds(self, random: bool, static: bool = True) -> list[str]:
        """The names of what can be measured of it, the one that matters first."""
        names = ["modulated", "original"] if self.modulation else ["encoder"]
        return names + ["static"] * static + ["random"] * random


def open_encoder(name: str, prefix: str | None = None) -> Encoder:
    """The encoder of a run or artefact of ours, of `mini`, of a folder in the hub's layout or of a hub id.

    Args:
        name: no code that comes with a model is ever run.
        prefix: before every text; None: the task's own for a T5, nothing for others.

    Raises:
        ValueError: nothing is there, or it is no text encoder, or it lacks weights or a tokenizer.
    """
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if (trained := load_trained(name, device)) is not None:
        model, tokenizer, handle = trained
        form = _form(model.config, tokenizer, prefix)
        return Encoder(name, tokenizer, form, model.config, parts_of(model).stack, handle)
    config, tokenizer, model = _load(name)
    encoder = Encoder(name, tokenizer, _form(config, tokenizer, prefix), config, model.to(device))
    if not encoder.form.question:
        _check_reads_both_ways(encoder)
    return encoder


def _form(config: Any, tokenizer: Any, prefix: str | None) -> SourceForm:
    form = source_form(config, tokenizer)
    return form if prefix is None else form._replace(prefix=prefix)


def find_artefact(name: str) -> Path | None:
    """The folder with the modulator of a run or artefact; None where `name` is neither.

    Raises:
        ValueError: a run whose modulator was never saved.
    """
    folder = Path(name).expanduser()
    if (folder / CONFIG).is_file():
        return folder
    if (folder / "modulator" / CONFIG).is_file():
        return folder / "modulator"
    run = (folder / "config.yaml").is_file() and not (folder / "config.json").is_file()
    if run and find_adapter(name) is None:
        raise ValueError(
            f"--model: {folder} is a run without modulator/{CONFIG}, which the end of a fit leaves; "
            f"resume it: python train.py fit --resume {folder}"
        )
    return None


def find_adapter(name: str) -> Path | None:
    """The folder with the LoRA or IA³ of a run; None where `name` holds none."""
    folder = Path(name).expanduser()
    places = (place for place in (folder, folder / "adapter") if all((place / file).is_file() for file in _ADAPTER))
    return next(places, None)


def represent(encoder: Encoder, tokens: Ragged, cloud: str) -> Tensor:
    """One vector a text, (N, D) fp32 on the CPU; shows a bar on a terminal and prints at the end how long it took."""
    from modulant.metrics import EntryRepresentations  # torchmetrics, which other probes do without

    hidden, device, metric = encoder.hidden(cloud), encoder.device, None
    started = time.monotonic()
    batches = sorted_batches(tokens.lengths, EVALUATION_BATCH)
    with torch.inference_mode():
        for rows in with_bar(batches, f"{cloud} of {encoder.name}"):
            inputs = padded_inputs(tokens.rows(rows), int(encoder.tokenizer.pad_token_id or 0))
            mask = inputs["attention_mask"].to(device)
            states = hidden(inputs["input_ids"].to(device), mask)
            if metric is None:
                metric = EntryRepresentations(len(tokens), states.shape[-1]).to(device)
            metric.update(torch.from_numpy(rows), states, mask)
        assert metric is not None, "no texts"
        points = metric.compute().cpu()
    seconds = time.monotonic() - started
    print(f"{encoder.name}: {len(tokens):,} definitions, {cloud}, {seconds:.1f} s", file=sys.stderr, flush=True)
    return points.clone()  # outside of inference mode


def load_trained(name: str, device: torch.device) -> tuple[Any, Any, Handle] | None:
    """Model, tokenizer and handle of a run or artefact of ours; None for anything else."""
    if (artefact := find_artefact(name)) is not None:
        model, tokenizer = load_modulated(artefact)
        model.modulator.to(device)
        return model.to(device), tokenizer, model.modulation
    if (adapter := find_adapter(name)) is None:
        return None
    from modulators.arguments import check_peft
    from modulators.training.controls.adapted import AdapterHandle

    check_peft()
    from peft import PeftConfig, inject_adapter_in_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    with _reading(f"{adapter} holds no adapter of a run"):
        config = PeftConfig.from_pretrained(str(adapter))
        state = load_file(adapter / _ADAPTER[1])
    head = _HEADS.get(str(config.task_type), "seq2seq")
    try:
        opened = open_model(str(config.base_model_name_or_path), head)
        model, tokenizer = opened.model, opened.tokenizer
    except ValueError as error:
        raise ValueError(f"--model: the backbone of {adapter}: {str(error).removeprefix('open_model: ')}") from error
    with _reading(f"the adapter in {adapter} does not fit {config.base_model_name_or_path!r}"):
        inject_adapter_in_model(config, model)
        state = {key.removeprefix("base_model.model."): tensor for key, tensor in state.items()}
        outcome: Any = set_peft_model_state_dict(model, state)
        lacking = [key for key in outcome.missing_keys if config.peft_type.value.lower() in key]
        if outcome.unexpected_keys or lacking:
            raise ValueError(f"{len(outcome.unexpected_keys)} tensors too many, {len(lacking)} missing")
    return freeze(model).to(device), tokenizer, AdapterHandle(model)


def _place(name: str) -> str:
    place = resolve_backbone(name)
    folder = Path(place)
    if folder.is_file():
        raise ValueError(f"--model: {name} is a file; {_RIGHT}")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ValueError(f"--model: {name} holds no model (config.json) and no modulator ({CONFIG}); {_RIGHT}")
    if not folder.is_dir() and (folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise ValueError(f"--model: there is no folder {name}; {_RIGHT}")
    return place


def _load(name: str) -> tuple[Any, Any, nn.Module]:
    """Configuration, tokenizer and encoder, frozen."""
    place = _place(name)
    with _quietly():
        with _reading(f"{name!r} is no folder, nor a model at hand", f"; {_RIGHT}"):
            check_reachable(str(place))
            config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        need = "; its folder needs a tokenizer.json, vocab.txt or spiece.model"
        with _reading(f"{name!r} has no tokenizer that can be read", need):
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
            # Where there are no files transformers builds a tokenizer of special tokens alone, and says nothing.
            if len(tokenizer) <= len(tokenizer.all_special_ids):
                raise ValueError(f"it would know {len(tokenizer)} special tokens and no word")
        with _reading(f"the weights of {name!r} cannot be read"):
            model, report = AutoModel.from_pretrained(
                place, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
            )
    lacking = sorted(key for key in report["missing_keys"] if not key.startswith(_NOT_NEEDED))
    if lacking:
        raise ValueError(f"--model: {name!r} lacks {len(lacking)} tensors ({', '.join(lacking[:3])} …)")
    return config, tokenizer, freeze(encoder_of(model))


@contextmanager
def _reading(wrong: str, need: str = "") -> Iterator[None]:
    """Say in one line what cannot be read; for a damaged file each library has errors of its own."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"--model: {wrong} ({first_line(error)}){need}") from error


def _check_reads_both_ways(encoder: Encoder) -> None:
    """Run it once: an encoder takes token ids, and its first token sees the last one.

    Raises:
        ValueError: it does not.
    """
    why = ""
    if "input_ids" not in inspect.signature(encoder.model.forward).parameters:
        why = "does not read text"
    else:
        ids = torch.tensor([encoder.tokens(["a small domesticated animal"])[0].tolist()], device=encoder.device)
        changed = ids.clone()
        changed[0, -1] = ids[0, -2]
        read = encoder.hidden("encoder")
        try:
            with torch.inference_mode():
                first, other = (read(x, torch.ones_like(x))[0, 0] for x in (ids, changed))
            if torch.equal(first, other):
                why = "reads from left to right only"
        except Exception as error:  # of whatever kind another architecture raises
            why = f"has no last hidden state for a text ({first_line(error)})"
    if why:
        raise ValueError(
            f"--model: {encoder.name!r}, a {encoder.config.model_type}, {why}: it is no text encoder; name one such as "
            "BERT, RoBERTa or T5"
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """What transformers says while it loads (heads that are not used, bars over tensors) is checked here instead."""
    level, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()
