"""The stream layer by layer: lengths, angles within and between texts, and effective dimensions of its tokens.

States are taken at the blocks, before any final norm: the last one of `hidden_states` may be after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from modulant.backbones.opening import Backbone
from modulant.geometry import (
    covariance,
    eigenvalues_of,
    grouped_cosines,
    participation_ratio,
    unbiased_participation_ratio,
)
from probes.findings import Findings, Null
from probes.terrain.vocabulary import ISOTROPIC

SENTENCES = (
    "The cat sat on the mat.",
    "Quantum mechanics describes the behavior of particles at the atomic scale.",
    "She quickly ran to the store before it closed.",
    "The derivative of x squared is two x.",
    "Red and blue make purple when mixed together.",
    "The president signed the new trade agreement yesterday.",
    "Three plus four equals seven.",
    "Love is patient, love is kind.",
    "The function returns a sorted list of integers.",
    "Mount Everest is the tallest mountain in the world.",
)
DEFINITIONS = 120
IMAGES = 16
_LONGEST = 128  # tokens of a text
_BATCH = 16
EMBEDDED = -1  # the stream before the first block


@dataclass(frozen=True, eq=False)
class Inputs:
    """What is read.

    Attributes:
        batches: token ids and mask, or pixels and None.
        what: a description.
    """

    batches: Sequence[tuple[Tensor, Tensor | None]]
    what: str


def texts() -> list[str]:
    """The ten sentences, and definitions of WordNet at even distances."""
    from modulant.lexicon import Lexicon

    definitions = Lexicon.load().definitions
    step = len(definitions) // DEFINITIONS
    return [*SENTENCES, *(definitions[i * step] for i in range(DEFINITIONS))]


def inputs_of(backbone: Backbone, tokenizer: Any, seed: int) -> Inputs:
    """Texts as tokens; images of noise where images are read."""
    if backbone.family.reads != "input_ids":
        config: Any = cast(Any, backbone.parts.stack).config
        side = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
        shape = (IMAGES, config.num_channels, side, side)
        pixels = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return Inputs([(pixels, None)], f"{IMAGES} images of Gaussian noise, whose patches are the tokens")
    lines = texts()
    limit = min(_LONGEST, backbone.shape.n_positions or _LONGEST)
    rows = [tokenizer.encode(line, truncation=True, max_length=limit) for line in lines]
    largest = max(max(row) for row in rows)
    if largest >= backbone.shape.vocab_size:
        raise ValueError(
            f"the tokenizer of {backbone.name!r} gives the token {largest}, and the model has "
            f"{backbone.shape.vocab_size:,}; it needs the tokenizer that it was trained with"
        )
    pad, batches = int(tokenizer.pad_token_id or 0), []
    for start in range(0, len(rows), _BATCH):
        some = [torch.tensor(row) for row in rows[start : start + _BATCH]]
        ids = nn.utils.rnn.pad_sequence(some, batch_first=True, padding_value=pad)
        lengths = torch.tensor([len(row) for row in some])
        batches.append((ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()))
    return Inputs(batches, f"{len(lines)} texts: ten fixed sentences, and {DEFINITIONS} definitions of WordNet")


@dataclass(frozen=True, eq=False)
class States:
    """The stream of all tokens.

    Attributes:
        layers: block, or `EMBEDDED`, → (tokens, D), on the CPU.
        text: (tokens,) the number of each token's text.
        first: (tokens,) whether a token is the first of its text.
    """

    layers: Mapping[int, Tensor]
    text: Tensor
    first: Tensor


def states_of(backbone: Backbone, inputs: Inputs, layers: Sequence[int]) -> States:
    """Run the model once over the inputs; hooks are removed whatever happens."""
    caught: dict[int, Tensor] = {}
    found: dict[int, list[Tensor]] = {layer: [] for layer in (EMBEDDED, *layers)}
    text, first, seen = [], [], 0

    def after(layer: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            caught[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    def before(_module: nn.Module, given: Any) -> None:
        caught[EMBEDDED] = given[0]

    handles = [backbone.blocks[0].register_forward_pre_hook(before)]
    handles += [backbone.blocks[layer].register_forward_hook(after(layer)) for layer in layers]
    try:
        with torch.inference_mode():
            for given, mask in inputs.batches:
                device = backbone.model.device
                backbone.encode(given.to(device), None if mask is None else mask.to(device))
                real = torch.ones(caught[EMBEDDED].shape[:2]) if mask is None else mask
                chosen = real.bool()
                for layer, kept in found.items():
                    kept.append(caught[layer].float().cpu()[chosen].clone())
                number = torch.arange(len(real))[:, None].expand(real.shape) + seen
                text.append(number[chosen])
                first.append((torch.arange(real.shape[1]) == 0).expand(real.shape)[chosen])
                seen += len(real)
    finally:
        for handle in handles:
            handle.remove()
    return States({layer: torch.cat(kept) for layer, kept in found.items()}, torch.cat(text), torch.cat(first))


def measure_layers(states: States, found: Findings, prefix: str, seed: int) -> None:
    """``<prefix>layer_03/norm`` …, and ``<prefix>embedded/…`` before the first block.

    All but ``norm`` leave out first tokens: that of a causal model is a sink, which dominates a mean of lengths.
    """
    later = ~states.first
    text = states.text[later]
    for layer, all_ in states.layers.items():
        at = f"{prefix}embedded" if layer == EMBEDDED else f"{prefix}layer_{layer:02d}"
        if not all_.isfinite().all():
            found.leave_out(at, ("norm", "anisotropy", "participation_ratio"), "the states are not finite")
            continue
        points = all_[later].double()
        n, dim = points.shape
        population = f"{n:,} tokens without the first of each text"
        found.add(f"{at}/norm", float(all_.double().norm(dim=1).mean()), f"{len(all_):,} tokens", "length")
        found.add(f"{at}/norm_without_first", float(points.norm(dim=1).mean()), population, "length")
        for name, some in (("", points), ("_centred", points - points.mean(0))):
            cosines = grouped_cosines(some, text)
            found.add(f"{at}/anisotropy{name}", cosines.between, population, null=Null("isotropic directions", [0.0]))
            null = Null("tokens of two texts (anisotropy)", [cosines.between])
            found.add(f"{at}/cosine_within{name}", cosines.within, population, null=null)
        matrix = covariance(points)
        values = eigenvalues_of(matrix)
        null = Null(ISOTROPIC, [(n - 1) * dim / (n - 1 + dim)])
        found.add(f"{at}/participation_ratio", float(participation_ratio(values)), population, null=null)
        unbiased = unbiased_participation_ratio(points, seed=seed)
        null = Null(ISOTROPIC, [float(dim)])
        found.add(f"{at}/participation_ratio_unbiased", float(unbiased), population, null=null)
        shares = matrix.diagonal() / matrix.trace()
        null = Null("equal variances", [1 / dim])
        found.add(f"{at}/top_dimension_share", float(shares.max()), population, "of variance", null)
