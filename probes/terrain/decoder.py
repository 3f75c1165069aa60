"""The decoder of a T5 beside its encoder: the same texts in both, the decoder's shifted right by its start token.

A token is compared with itself: the encoder's state at position t with the decoder's at t + 1, which has read the same
tokens up to it. Positions of unrelated texts, or unshifted ones, have nothing in common to be compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from modulant.backbones.families import parts_of
from modulant.backbones.opening import Backbone
from modulant.geometry import gram, paired_cosines, permuted_cka, unbiased_cka
from probes.findings import Findings, Null
from probes.terrain.layers import EMBEDDED, Inputs, States, measure_layers, states_of

PERMUTATIONS = 20
_TOKENS = 1500  # of which all pairs are compared
PERMUTED = "tokens paired at random"


@dataclass(frozen=True, eq=False)
class Decoder(Backbone):
    """The decoder's stack; `encode` reads what it is given with both stacks."""

    def encode(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the decoder's last hidden state; the first token is the decoder's alone."""
        assert mask is not None
        output = self.model(
            input_ids=inputs[:, 1:],
            attention_mask=mask[:, 1:],
            decoder_input_ids=inputs,
            decoder_attention_mask=mask,
            use_cache=False,
        )
        last: Tensor = output[0]
        return last


def has_decoder(backbone: Backbone) -> bool:
    """Whether a model has a decoder that attends to its encoder."""
    return "seq2seq" in backbone.family.heads and getattr(backbone.model, "decoder", None) is not None


def measure_decoder(
    backbone: Backbone, inputs: Inputs, layers: Sequence[int], found: Findings, prefix: str, seed: int
) -> None:
    """``<prefix>decoder/layer_00/norm`` … as of an encoder, and ``<prefix>encoder_decoder/layer_00/cka``, ``…/cosine``.

    Those compare layers of the same number, and as ``last`` the last ones.
    """
    decoder = Decoder(backbone.name, backbone.model, parts_of(backbone.model, "decoder"))
    n_encoder, n_decoder = backbone.shape.n_layers, decoder.shape.n_layers
    own = [layer for layer in layers if layer < n_decoder]
    start = backbone.model.config.decoder_start_token_id or 0
    shifted = []
    for ids, mask in inputs.batches:
        assert mask is not None
        shifted.append((F.pad(ids, (1, 0), value=start), F.pad(mask, (1, 0), value=1)))
    after = states_of(decoder, Inputs(shifted, inputs.what), sorted({*own, n_decoder - 1}))
    measure_layers(_some(after, own), found, f"{prefix}decoder/", seed)
    before = states_of(backbone, inputs, sorted({*own, n_encoder - 1}))
    kept = ~after.first
    pairs = {layer: (before.layers[layer], after.layers[layer][kept]) for layer in (EMBEDDED, *own)}
    named = {"embedded" if layer == EMBEDDED else f"layer_{layer:02d}": pair for layer, pair in pairs.items()}
    named["last"] = (before.layers[n_encoder - 1], after.layers[n_decoder - 1][kept])
    _compare(named, found, f"{prefix}encoder_decoder", seed)


def _compare(pairs: Mapping[str, tuple[Tensor, Tensor]], found: Findings, prefix: str, seed: int) -> None:
    """CKA without bias and cosines of states that belong together, each beside those of tokens at random."""
    generator = torch.Generator().manual_seed(seed)
    for name, (a, b) in pairs.items():
        at = f"{prefix}/{name}"
        if not (a.isfinite().all() and b.isfinite().all()):
            found.leave_out(at, ("cka", "cosine", "cosine_centred"), "the states are not finite")
            continue
        some = torch.randperm(len(a), generator=generator)[:_TOKENS]
        k, l = gram(a[some]), gram(b[some])
        null = permuted_cka(k, l, PERMUTATIONS, seed)[:, 0].tolist()
        found.add(f"{at}/cka", float(unbiased_cka(k, l)), f"{len(some):,} tokens", null=Null(PERMUTED, null))
        for key, x, y in (("cosine", a, b), ("cosine_centred", a - a.mean(0), b - b.mean(0))):
            cosines = paired_cosines(x, y)
            found.add(f"{at}/{key}", cosines.own, f"{len(a):,} tokens", null=Null(PERMUTED, [cosines.others]))


def _some(states: States, layers: Sequence[int]) -> States:
    return States({layer: states.layers[layer] for layer in (EMBEDDED, *layers)}, states.text, states.first)
