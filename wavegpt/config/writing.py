"""Configuration of what a trained model writes. Imports no torch."""

from dataclasses import dataclass

from modulant.settings import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Seed, Share, checked


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn (`wavegpt.sampling`).

    Attributes:
        temperature: 0 is greedy; above, tokens are sampled, the more freely the higher.
        top_k: sample from so many of the likeliest tokens; 0: from all.
        top_p: sample from the fewest tokens whose probability reaches this; 1: from all.
        min_p: leave out tokens of less than this share of the likeliest one's probability.
        repetition_penalty: logits of tokens that were there are divided by it if positive, else multiplied; 1: none.
        seed: of the draws of the first row; the next one's is one more.
    """

    temperature: NonNegativeFloat = 0.8
    top_k: NonNegativeInt = 0
    top_p: Share = 1.0
    min_p: Share = 0.0
    repetition_penalty: PositiveFloat = 1.0
    seed: Seed = 42

    @checked
    def __post_init__(self) -> None: ...


@dataclass(frozen=True)
class WritingConfig(Sampling):
    """How a prompt is continued: as `Sampling` says, and how far.

    Attributes:
        max_new_tokens: longest text, in tokens; a mark between documents ends it earlier.
        stop: texts that end it, and are left out; null: none.
    """

    max_new_tokens: PositiveInt = 100
    stop: list[str] | None = None

    @checked
    def __post_init__(self) -> None: ...
