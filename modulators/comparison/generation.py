"""What the original and the modulated model answer to the same prompts, so that any difference is the modulator's.

Greedy by default. Where answers are sampled, the random numbers of a prompt follow from the seed, the prompt and the
number of the sample alone: both models and every α draw with the same ones, and neither the order of the prompts nor
the size of a batch changes an answer.
"""

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, TopPLogitsWarper

from modulators.arguments import check_asking, check_scales

ORIGINAL = None  # in the place of an α scale: the backbone without what is attached


@dataclass(frozen=True)
class Asking:
    """How models are asked.

    Attributes:
        alpha_scales: the modulated model answers at each: its α is used times this.
        temperature: 0 is greedy; else tokens are drawn from softmax(logits / temperature).
        top_p: of the drawn tokens, the smallest set whose probability reaches this.
        max_new_tokens: of an answer, its end token included.
        samples: answers to each prompt; greedy ones would be equal.
        seed: of what is drawn.
        next_tokens: how many of the likeliest first tokens are told with their probabilities.

    Raises:
        ValueError: a value out of its range.
    """

    alpha_scales: Sequence[float] = (1.0,)
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 16
    samples: int = 1
    seed: int = 42
    next_tokens: int = 0

    def __post_init__(self) -> None:
        check_scales(self.alpha_scales)
        check_asking(self.temperature, self.top_p, self.max_new_tokens, self.samples, self.seed, self.next_tokens)


class Answer(NamedTuple):
    """What one model says.

    Attributes:
        text: without special tokens.
        tokens: pieces of it, as the tokenizer writes them; the end token is the last where there is one.
        logprobs: of each token given those before it, in nats, at temperature 1 and among all tokens.
        next: the likeliest first tokens and their probabilities, at temperature 1.
    """

    text: str
    tokens: list[str]
    logprobs: list[float]
    next: list[tuple[str, float]]


class Asked(NamedTuple):
    """A prompt's answers at one α: what a line of a page, or of predictions.jsonl, is made of."""

    prompt: str
    alpha_scale: float
    sample: int
    original: Answer
    modulated: Answer


def ask(
    model: Any, tokenizer: Any, handle: Any, prompts: Sequence[str], inputs: dict[str, Tensor], asking: Asking
) -> list[Asked]:
    """Ask both models, prompt by prompt, scale by scale, sample by sample.

    Args:
        model: a T5 to which something is attached.
        handle: switches that off, and scales it where other scales than 1 are asked for.
        prompts: as they are shown, one a row of `inputs`.
        inputs: ``input_ids`` and ``attention_mask`` (B, S), on the model's device.

    Raises:
        ValueError: a scale other than 1 for something that has no α.
    """
    if any(scale != 1.0 for scale in asking.alpha_scales) and not hasattr(handle, "scaled"):
        raise ValueError("talk.alpha_scales: what was trained is no modulator and has no α to scale; it must be [1.0]")
    found = []
    for sample in range(asking.samples):
        originals = _answers(model, tokenizer, handle, prompts, inputs, asking, sample, ORIGINAL)
        for scale in asking.alpha_scales:
            modulated = _answers(model, tokenizer, handle, prompts, inputs, asking, sample, scale)
            rows = zip(prompts, originals, modulated, strict=True)
            found.append([Asked(prompt, scale, sample, original, changed) for prompt, original, changed in rows])
    return [asked for of_prompt in zip(*found, strict=True) for asked in of_prompt]


def _answers(
    model: Any,
    tokenizer: Any,
    handle: Any,
    prompts: Sequence[str],
    inputs: dict[str, Tensor],
    asking: Asking,
    sample: int,
    scale: float | None,
) -> list[Answer]:
    drawing = LogitsProcessorList()
    if asking.temperature > 0:
        drawing.append(Drawn(asking, [_seed(asking.seed, prompt, sample) for prompt in prompts]))
    context = handle.disabled() if scale is ORIGINAL else nullcontext() if scale == 1.0 else handle.scaled(scale)
    with context, torch.no_grad():
        done = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=asking.max_new_tokens,
            do_sample=False,  # the noise is in the scores: their largest is the draw
            num_beams=1,
            logits_processor=drawing,
            output_logits=True,
            return_dict_in_generate=True,
        )
    tokens = done.sequences[:, 1:]  # (B, T), without the start token
    first = done.logits[0].float().softmax(-1).topk(asking.next_tokens)
    own = [step.float().log_softmax(-1).gather(-1, tokens[:, t, None]) for t, step in enumerate(done.logits)]
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
        tokens=list(tokenizer.convert_ids_to_tokens(tokens[:length])),
        logprobs=logprobs[:length],
        next=[(tokenizer.decode([token]), chance) for token, chance in first],
    )


def _seed(seed: int, prompt: str, sample: int) -> int:
    digest = hashlib.sha256(f"{seed}\n{sample}\n{prompt}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Drawn(LogitsProcessor):
    """Scores whose largest is a draw from softmax(scores / temperature), cut to the top p: the Gumbel-max trick.

    argmax(s + g) with independent g = −log(−log u) is distributed as softmax(s). Each row has a generator of its own,
    on the CPU, so that a seed means the same on every device.
    """

    def __init__(self, asking: Asking, seeds: Sequence[int]) -> None:
        self._temperature = asking.temperature
        self._top_p = TopPLogitsWarper(asking.top_p) if asking.top_p < 1 else None
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores / self._temperature
        if self._top_p is not None:
            scores = self._top_p(input_ids, scores)
        uniform = torch.stack([torch.rand(scores.shape[1], generator=g, dtype=torch.float64) for g in self._generators])
        gumbel = -(-uniform.clamp_min(torch.finfo(torch.float64).tiny).log()).log()
        return scores + gumbel.to(scores)
