"""The residual stream's sizes."""

from dataclasses import dataclass

from modulant.backbones.sizes import check_positive


@dataclass(frozen=True)
class ResidualStream:
    """Sizes of a backbone that a modulator needs: stream width, number of blocks, rows of the embedding table.

    Raises:
        ValueError: a size is not a positive integer.
    """

    d_model: int
    n_layers: int
    vocab_size: int

    def __post_init__(self) -> None:
        for name in ("d_model", "n_layers", "vocab_size"):
            check_positive(name, getattr(self, name))
            object.__setattr__(self, name, int(getattr(self, name)))  # of NumPy's integers, which JSON does not write
