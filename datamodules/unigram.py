"""Train a T5 tokenizer: a unigram vocabulary with T5's special tokens at T5's places.

Ids 0, 1, 2 are padding, end and unknown; the 100 sentinels of span corruption come last, in falling order, as in T5.
"""

from collections.abc import Iterable

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import T5Tokenizer

from datamodules.arguments import SENTINELS, SMALLEST_VOCABULARY, SPECIAL


def train_unigram(texts: Iterable[str], vocab_size: int) -> T5Tokenizer:
    """Train a tokenizer of ``vocab_size`` ids, special tokens and sentinels included, on ``texts``.

    The algorithm is Kudo's (2018, https://arxiv.org/abs/1804.10959): expectation maximisation over segmentations, with
    pieces pruned by their contribution to the likelihood. `tokenizers` sums in an order that differs between processes:
    the same texts give the same pieces except for a few near the cut-off, and scores equal to two decimals.

    Raises:
        ValueError: the vocabulary has no room for pieces besides the special tokens.
    """
    room = vocab_size - SENTINELS
    if vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(f"vocab_size must be at least {SMALLEST_VOCABULARY}, got {vocab_size}")
    tokenizer = Tokenizer(models.Unigram())
    # The same pre-tokenization as T5Tokenizer, so that training and use see the same words.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
        ]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=room, special_tokens=list(SPECIAL), unk_token="<unk>", max_piece_length=24, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    scores = {piece: score for piece, score in _pieces(tokenizer) if piece not in SPECIAL}
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[: room - len(SPECIAL)]
    vocabulary = [(piece, 0.0) for piece in SPECIAL] + ranked
    vocabulary += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(vocab_size - len(vocabulary)))]
    return T5Tokenizer(vocab=vocabulary, extra_ids=SENTINELS, model_max_length=512)


def _pieces(tokenizer: Tokenizer) -> list[tuple[str, float]]:
    import json

    return [(piece, float(score)) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
