"""The residual stream, as far as a modulator must know it."""

from dataclasses import dataclass

from modulant.backbones.sizes import check_positive


@dataclass(frozen=True)
class ResidualStream:
    """What a modulator must know of its backbone: width of the stream, encoder blocks, rows of the embedding table.

    Raises:
        ValueError: a size that is no positive integer.
    """

    d_model: int
    n_layers: int
    vocab_size: int

    def __post_init__(self) -> None:
        for name in ("d_model", "n_layers", "vocab_size"):
            check_positive(name, getattr(self, name))
