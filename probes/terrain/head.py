"""The embedding against the language-model head, where that is a matrix of its own."""

from typing import Any

import torch
from torch import Tensor

from modulant.backbones.opening import open_model
from modulant.geometry import paired_cosines
from probes.findings import Findings, Null
from probes.opening import Rows, Subject
from probes.topology.layout import LM_HEADS
from probes.topology.reader import Weights

_NAMES = ("cosine", "cosine_centred", "distance")
OTHER_TOKENS = "the head's rows of other tokens"


def measure_head(subject: Subject, rows: Rows, found: Findings) -> None:
    """``head/tied``; of a head of its own ``head/cosine``, ``…_centred`` and ``head/distance``, ‖E − U‖ / ‖E‖.

    Two matrices that differ by a rotation serve equally well, and have a cosine near that of other tokens.
    """
    if not subject.backbone.family.heads:
        found.leave_out("head", ("tied", *_NAMES), "its family has no language-model head")
        return
    weight = head_of(subject)
    found.add("head/tied", float(weight is None), "the matrix")
    if weight is None:
        found.leave_out("head", _NAMES, "no head of its own is stored: it is the embedding, or there is none")
        return
    known = rows.ids < len(weight)
    e = rows.points[known.to(rows.points.device)].double()
    u = weight[rows.ids[known].to(weight.device)].to(e)
    n, population = len(e), f"{len(e):,} tokens"
    for name, a, b in (("cosine", e, u), ("cosine_centred", e - e.mean(0), u - u.mean(0))):
        cosines = paired_cosines(a, b)
        found.add(f"head/{name}", cosines.own, population, null=Null(OTHER_TOKENS, [cosines.others]))
    length = e.norm()
    permuted = (e.square().sum() + u.square().sum() - 2 * e.sum(0) @ u.sum(0) / n).sqrt() / length
    null = Null("the head's rows permuted", [float(permuted)])
    found.add("head/distance", float((e - u).norm() / length), population, null=null)


def head_of(subject: Subject) -> Tensor | None:
    """The head's matrix; None where it is the embedding's own storage, or none is stored."""
    backbone, embedding = subject.backbone, subject.embedding
    model: Any = backbone.model
    if backbone.head is None:
        place = str(model.name_or_path)  # of a run, its backbone's
        weights = Weights(place)
        stored = [weights.read(name) for name in weights.names if LM_HEADS.search(name)]
        if all(torch.equal(one, embedding.float().cpu()) for one in stored if embedding is not None):
            return None
        model = open_model(place, backbone.family.heads[0], revision=backbone.revision).model
    head: Tensor = model.get_output_embeddings().weight.detach()
    return None if head.data_ptr() == model.get_input_embeddings().weight.data_ptr() else head
