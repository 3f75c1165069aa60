"""One pass over texts: each layer's attention reduced as it is computed, beside attention that says nothing."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from typing import cast

import torch
from torch import Tensor

from modulant.backbones.opening import Backbone
from modulant.geometry import dirichlet_attention, permuted_keys, uniform_attention, with_sink
from probes.attention.lens import Lens, Seen
from probes.attention.reading import Attention, attentions_of, forward, reading
from probes.attention.reduce import Place, reduce_attention
from probes.attention.texts import FIRST, WORD, Batch
from probes.options import with_bar

OWN = MODEL, PERMUTED, UNIFORM = "model", "permuted", "uniform"  # by layer
DIRICHLET, SINK_DIRICHLET = "dirichlet", "sink_dirichlet"
_MASKED = "masked"


@dataclass(eq=False)
class Layers:
    """Figures of one kind of attention over texts, by name; of heads (N, L, H), of layers (N, L).

    Attributes:
        layers: the layers that were read.
        of: figures by whose attention it is: `MODEL`, `PERMUTED`, `UNIFORM`; the others have one layer, of no number.
        attention: what was read.
    """

    layers: list[int]
    of: dict[str, dict[str, Tensor]]
    attention: Attention

    def __getitem__(self, name: str) -> Tensor:
        return self.of[MODEL][name]


@dataclass(eq=False)
class Pass:
    """Figures of all texts.

    Attributes:
        lengths: (N,) tokens of each.
        stacks: by `Attention.name`.
        seen: of the lens; None where there is none.
        masked: of what fills masks, attention to the texts with their last word masked; `LAST` is of its query.
    """

    lengths: Tensor
    stacks: dict[str, Layers]
    seen: Seen | None = None
    masked: Layers | None = None

    @property
    def next_stack(self) -> str:
        """The stack that makes tokens."""
        return "decoder" if "decoder" in self.stacks else ""

    @property
    def predicts(self) -> Layers:
        """The attention that a prediction is made by."""
        return self.masked or self.stacks[self.next_stack]

    @property
    def predicted(self) -> str:
        """Which token is."""
        return "last word masked" if self.masked else "last token"


@dataclass(eq=False)
class _Store:
    """Takes figures of batches into tensors over all texts."""

    texts: int
    values: dict[str, Tensor] = field(default_factory=dict)

    def put(self, index: Tensor, place: int, layers: int, found: dict[str, Tensor]) -> None:
        for name, value in found.items():
            value = value.cpu()
            if name not in self.values:
                shape = (self.texts, layers, *value.shape[1:])
                self.values[name] = torch.full(shape, torch.nan, dtype=torch.float64)
            self.values[name][index, place] = value


def measure_pass(
    backbone: Backbone,
    batches: Sequence[Batch],
    layers: Sequence[int],
    seed: int,
    label: str,
    unigram: Tensor | None = None,
    controls: bool = True,
) -> Pass:
    """Read all texts once; of what fills masks, once more with the last word masked.

    Args:
        backbone: the model.
        batches: the texts.
        layers: that are read, of each stack.
        seed: of permuted keys and drawn weights, equal on every device.
        label: of the progress bar.
        unigram: (V,) log probabilities of tokens; None: there is no lens.
        controls: measure attention that says nothing beside the model's.

    Raises:
        ValueError: attention cannot be read.
    """
    attentions = {attention.name: attention for attention in attentions_of(backbone)}
    chosen = {name: [n for n in layers if n < len(a.modules)] for name, a in attentions.items()}
    n = sum(len(batch.index) for batch in batches)
    stores = {(name, whose): _Store(n) for name in attentions for whose in (MODEL, PERMUTED, UNIFORM)}
    generators = {
        (name, layer): torch.Generator().manual_seed(seed + 1000 * i + layer)
        for i, name in enumerate(attentions)
        for layer in layers
    }
    stores |= {(name, _MASKED): _Store(n) for name in attentions}
    lengths, batch, masks = torch.zeros(n, dtype=torch.long), batches[0], False
    uniform: dict[tuple[str, int | None], dict[str, Tensor]] = {}

    def receive(name: str, layer: int, weights: Tensor, visible: Tensor) -> None:
        attention, index = attentions[name], batch.index
        place = place_of(attention, visible, batch)
        at, count = chosen[name].index(layer), len(chosen[name])
        if masks:
            found = reduce_attention(weights, replace(place, asked=batch.asked))
            stores[name, _MASKED].put(index, at, count, found)
            return
        stores[name, MODEL].put(index, at, count, reduce_attention(weights, place))
        if name == "":
            lengths[index] = weights.shape[-1]
        if not controls:
            return
        dealt = permuted_keys(weights, visible, place.sink, generators[name, layer])
        stores[name, PERMUTED].put(index, at, count, reduce_attention(dealt, place))
        window = (name, attention.windows[layer])
        if window not in uniform:
            uniform[window] = reduce_attention(uniform_attention(visible).expand(weights.shape), place)
        stores[name, UNIFORM].put(index, at, count, uniform[window])

    lens, looks = Lens.of(backbone) if unigram is not None else None, []
    if lens and lens.masked and batch.masked is None:
        lens = None
    with torch.inference_mode(), reading(backbone, list(attentions.values()), layers, receive) as seen:
        for batch in with_bar(batches, label):
            uniform.clear()
            seen.clear()
            masks = False
            with lens.stream() if lens and not lens.masked else nullcontext() as states:
                forward(backbone, batch.inputs)
            assert seen == {(name, layer): 1 for name, some in chosen.items() for layer in some}, "one a layer"
            if lens and lens.masked:
                masks = True
                with lens.stream(batch.asked) as states:
                    forward(backbone, cast(Tensor, batch.masked))
            if states:
                looks.append((batch.index, cast(Lens, lens).look(states, cast(Tensor, unigram))))
    found = {
        name: Layers(chosen[name], {whose: stores[name, whose].values for whose in OWN}, attention)
        for name, attention in attentions.items()
    }
    masked = None
    if lens and lens.masked:
        masked = Layers(chosen[""], {MODEL: stores["", _MASKED].values}, attentions[""])
    return Pass(lengths, found, _gathered(looks) if looks else None, masked)


def place_of(attention: Attention, visible: Tensor, batch: Batch) -> Place:
    """What an attention looks at; cross-attention may rest on the text's end, others on its first token."""
    kinds = batch.kinds
    if attention.name == "decoder" and kinds is not None:  # the start token, and the text without its end
        kinds = torch.cat([torch.full_like(kinds[:, :1], FIRST), kinds[:, :-1].where(kinds[:, :-1] != FIRST, WORD)], 1)
    return Place(visible, visible.shape[1] - 1 if attention.cross else 0, attention.cross, kinds)


def measure_noise(layers: Layers, batches: Sequence[Batch], seed: int) -> None:
    """Add to the figures those of drawn weights: `DIRICHLET`, and `SINK_DIRICHLET` with the model's mean sink."""
    share = float(layers["sink"].nanmean())
    heads = layers["sink"].shape[2]
    stores = {name: _Store(len(layers["sink"])) for name in (DIRICHLET, SINK_DIRICHLET)}
    generator = torch.Generator().manual_seed(seed)
    for batch in batches:
        visible = layers.attention.visible_of_all(batch.inputs.shape[1])
        place = place_of(layers.attention, visible, batch)
        drawn = dirichlet_attention(visible, (len(batch.index), heads), generator)
        for name, weights in (
            (DIRICHLET, drawn),
            (SINK_DIRICHLET, with_sink(drawn, visible, place.sink, share) if share == share else drawn),
        ):
            stores[name].put(batch.index, 0, 1, reduce_attention(weights, place))
    layers.of |= {name: store.values for name, store in stores.items()}


def _gathered(looks: Sequence[tuple[Tensor, Seen]]) -> Seen:
    """What a lens saw of all texts, in their order."""
    order = torch.cat([index for index, _ in looks]).argsort()
    return Seen(*(torch.cat([getattr(look, f.name) for _, look in looks])[order] for f in fields(Seen)))
