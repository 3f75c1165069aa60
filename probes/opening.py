"""What is measured: a model of any known family or a run, its tokenizer, and the rows of its vocabulary."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from modulant.backbones.families import family_of, parts_of
from modulant.backbones.families.base import at_path
from modulant.backbones.loading import read_config
from modulant.backbones.opening import Backbone, of_random_weights, open_model
from modulant.geometry import covariance
from probes.alignment.encoders import Handle, load_trained
from probes.options import check_device

_TINY = 1e-6  # of the median norm: a row below that is zero


@dataclass(frozen=True, eq=False)
class Subject:
    """An opened model.

    Attributes:
        backbone: the model and its parts.
        tokenizer: None without one.
        no_tokenizer: why there is none.
        modulation: handle of a modulator or adapter that is attached.
    """

    backbone: Backbone
    tokenizer: Any
    no_tokenizer: str = ""
    modulation: Handle | None = None

    @property
    def embedding(self) -> Tensor | None:
        """Input embeddings (V, D); None where images are read."""
        if self.backbone.family.reads != "input_ids":
            return None
        weight: Tensor = at_path(self.backbone.embed, "weight").detach()
        return weight.cpu() if weight.device.type == "mps" else weight  # which has no fp64

    @contextmanager
    def original(self) -> Iterator[None]:
        """Context in which a modulator is disabled."""
        with self.modulation.disabled() if self.modulation else nullcontext():
            yield

    def untrained(self, seed: int) -> Backbone:
        """The same architecture with random weights, on the same device; the global random state stays."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = of_random_weights(self.backbone.name, self.backbone.model.config)
        made.model.to(self.backbone.model.device)
        return made


def open_subject(name: str, device: str | None, with_head: bool = False) -> Subject:
    """Open a model or a run on a device.

    Args:
        name: of the model, or of a run.
        device: None: an accelerator, if there is one.
        with_head: with the head that makes next or masked tokens, where the model has one.

    Raises:
        ValueError: there is no such model or device.
    """
    if device is not None:
        check_device(device)
        where = torch.device(device)
    else:
        where = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        if (trained := load_trained(name, where)) is not None:
            model, tokenizer, handle = trained
            return Subject(Backbone(name, model, parts_of(model)), tokenizer, modulation=handle)
        backbone = _with_head(name) if with_head else open_model(name)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("--model: ").removeprefix("open_model: ")) from error
    backbone.model.to(where)
    try:
        return Subject(backbone, backbone.tokenizer, "" if backbone.tokenizer else "it reads images")
    except ValueError as error:
        return Subject(backbone, None, str(error).removeprefix("open_model: "))


def _with_head(name: str) -> Backbone:
    """With the head of its family, where the files hold it; without, where they do not."""
    for head in family_of(read_config(name))[0].heads:
        try:
            return open_model(name, head)
        except ValueError:  # what is wrong beside the head is said below
            pass
    return open_model(name)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of an embedding matrix that are measured.

    Attributes:
        points: (n, D).
        ids: (n,) their numbers in the matrix.
        counts: rows of the matrix, by what became of them.
    """

    points: Tensor
    ids: Tensor
    counts: dict[str, int] = field(default_factory=dict)

    @cached_property
    def covariance(self) -> Tensor:
        """(D, D), in fp64."""
        return covariance(self.points)

    @cached_property
    def mean(self) -> Tensor:
        """(D,), in fp64."""
        return self.points.double().mean(0)

    @property
    def population(self) -> str:
        return f"{len(self.points):,} rows"


def rows_of(subject: Subject, embedding: Tensor, which: str) -> Rows:
    """The rows of a vocabulary.

    Args:
        subject: whose tokenizer says which rows are tokens.
        embedding: (V, D).
        which: ``tokens``: those of a token that is not special and not zero; ``all``: the whole matrix. Rows that are
            not finite are left out of both.

    Raises:
        ValueError: tokens are asked for and there is no tokenizer, or fewer than 5 rows are left.
    """
    total = len(embedding)
    keep = embedding.isfinite().all(1).cpu()
    counts = {"matrix": total, "damaged": int((~keep).sum()), "padding": 0, "special": 0, "zero": 0}
    if which == "tokens":
        if subject.tokenizer is None:
            raise ValueError(f"{subject.no_tokenizer}; --rows all measures the matrix without one")
        special = special_ids(subject.tokenizer)
        known = torch.zeros(total, dtype=torch.bool)
        known[[i for i in subject.tokenizer.get_vocab().values() if i < total]] = True
        named = torch.zeros(total, dtype=torch.bool)
        named[[i for i in special if i < total]] = True
        norms = embedding.float().norm(dim=1).cpu()
        zero = norms < _TINY * norms[keep].median()
        for what, out in (("padding", ~known & ~named), ("special", named), ("zero", zero)):
            counts[what] = int((keep & out).sum())
            keep = keep & ~out
    ids = keep.nonzero().flatten()
    if len(ids) < 5:
        raise ValueError(f"{subject.backbone.name!r} has {len(ids)} such rows of {total:,}; at least 5 are needed")
    return Rows(embedding[ids.to(embedding.device)].float(), ids, counts | {"measured": len(ids)})


def special_ids(tokenizer: Any) -> list[int]:
    """Numbers of special tokens, those that were added among them."""
    added = (i for i, token in tokenizer.added_tokens_decoder.items() if token.special)
    return sorted({*tokenizer.all_special_ids, *added})
