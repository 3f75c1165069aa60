"""How far a modulator moves each token of a text: what `ModulatorHandle.inspect` returns."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Inspection:
    """How far each token of one text was moved.

    Attributes:
        tokens: the tokenizer's pieces, special tokens included.
        layers: the modulated blocks, ascending.
        moved: ‖h′ − h‖ / ‖h‖ of each token at each of these layers; h is the stream before the modulator, h′ after it.
        drift: 1 − cosine of each token's last hidden state with that of the base.
    """

    tokens: list[str]
    layers: list[int]
    moved: Float[Tensor, "tokens layers"]
    drift: Float[Tensor, " tokens"]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-compatible values."""
        numbers = {"moved": self.moved.tolist(), "drift": self.drift.tolist()}
        return {"tokens": self.tokens, "layers": self.layers, **numbers}
