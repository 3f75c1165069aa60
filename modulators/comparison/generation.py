"""Generate answers of the original and the modulated model to the same prompts, so that only the modulator differs.

Greedy by default. When sampling, the random numbers of a prompt depend only on the seed, the prompt and the index of
the sample: both models and every α use the same ones, and neither the order of the prompts nor the batch size changes
an answer.
"""

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, TopPLogitsWarper

from modulant.backbones.generation import generate_greedily
from modulators.arguments import GenerationSettings

ORIGINAL = None  # instead of an α scale: the backbone with its modulation disabled


class Answer(NamedTuple):
    """Answer of one model.

    Attributes:
        text: without special tokens.
        tokens: the tokenizer's pieces, including the end token if it was generated.
        logprobs: of each token given those before it, in nats, at temperature 1 and over the whole vocabulary.
        next: the most likely first tokens and their probabilities, at temperature 1.
    """

    text: str
    tokens: list[str]
    logprobs: list[float]
    next: list[tuple[str, float]]


class Comparison(NamedTuple):
    """Both models' answers to a prompt at one α scale: one row of the page and of predictions.jsonl."""

    prompt: str
    alpha_scale: float
    sample: int
    original: Answer
    modulated: Answer


def compare(
    model: Any,
    tokenizer: Any,
    handle: Any,
    prompts: Sequence[str],
    inputs: dict[str, Tensor],
    settings: GenerationSettings,
    begin: int = 1,
) -> list[Comparison]:
    """Generate answers of both models, ordered by prompt, sample and scale.

    Args:
        model: a T5 or a causal model with a modulator or adapter attached.
        handle: disables what is attached, and scales its α.
        prompts: for display, one for each row of `inputs`.
        inputs: ``input_ids`` and ``attention_mask`` (B, S), on the model's device.
        begin: tokens before an answer: a T5's start token, a causal model's prompt.

    Raises:
        ValueError: a scale other than 1 for an adapter, which has no α.
    """
    if any(scale != 1.0 for scale in settings.alpha_scales) and not hasattr(handle, "scaled"):
        raise ValueError("talk.alpha_scales: an adapter has no α to scale; it must be [1.0]")
    found = []
    for sample in range(settings.samples):
        originals = _answers(model, tokenizer, handle, prompts, inputs, settings, begin, sample, ORIGINAL)
        for scale in settings.alpha_scales:
            modulated = _answers(model, tokenizer, handle, prompts, inputs, settings, begin, sample, scale)
            rows = zip(prompts, originals, modulated, strict=True)
            found.append([Comparison(prompt, scale, sample, original, changed) for prompt, original, changed in rows])
    return [comparison for of_prompt in zip(*found, strict=True) for comparison in of_prompt]


def _answers(
    model: Any,
    tokenizer: Any,
    handle: Any,
    prompts: Sequence[str],
    inputs: dict[str, Tensor],
    settings: GenerationSettings,
    begin: int,
    sample: int,
    scale: float | None,
) -> list[Answer]:
    processors = LogitsProcessorList()
    if settings.temperature > 0:
        processors.append(GumbelSampling(settings, [_seed(settings.seed, prompt, sample) for prompt in prompts]))
    context = handle.disabled() if scale is ORIGINAL else nullcontext() if scale == 1.0 else handle.scaled(scale)
    with context, torch.no_grad():
        generated = generate_greedily(  # when sampling, noise is added to the scores: their argmax is the sample
            model,
            inputs["input_ids"],
            inputs["attention_mask"],
            settings.max_new_tokens,
            tokenizer.eos_token_id,
            logits_processor=processors,
            output_logits=True,
            return_dict_in_generate=True,
        )
    tokens = generated.sequences[:, begin:]  # (B, T)
    first = generated.logits[0].float().softmax(-1).topk(settings.next_tokens)
    own = [step.float().log_softmax(-1).gather(-1, tokens[:, t, None]) for t, step in enumerate(generated.logits)]
    logprobs = torch.cat(own, 1)  # (B, T)
    return [
        _read(tokenizer, row, of_row, list(zip(likely, chances, strict=True)))
        for row, of_row, likely, chances in zip(
            tokens.tolist(), logprobs.tolist(), first.indices.tolist(), first.values.tolist(), strict=True
        )
    ]


def _read(tokenizer: Any, tokens: list[int], logprobs: list[float], first: list[tuple[int, float]]) -> Answer:
    end = tokenizer.eos_token_id
    length = tokens.index(end) + 1 if end in tokens else len(tokens)
    return Answer(
        text=tokenizer.decode(tokens[:length], skip_special_tokens=True),
        tokens=[_piece(tokenizer, token) for token in tokens[:length]],
        logprobs=logprobs[:length],
        next=[(_piece(tokenizer, token, tokenizer.decode([token])), chance) for token, chance in first],
    )


def _piece(tokenizer: Any, token: int, text: str | None = None) -> str:
    """A token's text, by default the tokenizer's piece; its number if it is a row that only pads the vocabulary."""
    piece: str | None = tokenizer.convert_ids_to_tokens(token)
    if piece is None:
        return f"<{token}>"
    return piece if text is None else text


def _seed(seed: int, prompt: str, sample: int) -> int:
    digest = hashlib.sha256(f"{seed}\n{sample}\n{prompt}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class GumbelSampling(LogitsProcessor):
    """Gumbel-max trick: adds noise so that the argmax is a sample from softmax(scores / temperature) within the top p.

    argmax(s + g) with independent g = −log(−log u) is distributed as softmax(s). Each row has its own generator on the
    CPU, so that a seed gives the same samples on every device.
    """

    def __init__(self, settings: GenerationSettings, seeds: Sequence[int]) -> None:
        self._temperature = settings.temperature
        self._top_p = TopPLogitsWarper(settings.top_p) if settings.top_p < 1 else None
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores / self._temperature
        if self._top_p is not None:
            scores = self._top_p(input_ids, scores)
        uniform = torch.stack([torch.rand(scores.shape[1], generator=g, dtype=torch.float64) for g in self._generators])
        gumbel = -(-uniform.clamp_min(torch.finfo(torch.float64).tiny).log()).log()
        return scores + gumbel.to(scores)
