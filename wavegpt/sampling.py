"""Text from a model, token by token: filters of logits, seeded draws, stops, by a cache or by forwarding anew."""

from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wavegpt.config import Sampling
from wavegpt.model import WaveGPT
from wavegpt.observed import Observed

_PADDING, _REAL = 0, 1  # segments of prompts that are padded on the left


def filtered(logits: Float[Tensor, "B V"], sampling: Sampling, seen: Int[Tensor, "B S"] | None = None
             ) -> Float[Tensor, "B V"]:  # fmt: skip
    """Logits over the temperature, with −∞ for what is not kept; the likeliest token always is.

    >>> filtered(torch.tensor([[1.0, 3.0, 2.0]]), Sampling(temperature=1.0, top_k=2))
    tensor([[-inf, 3., 2.]])
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if seen is not None and sampling.repetition_penalty != 1:
        penalty = sampling.repetition_penalty
        old = logits.gather(-1, seen)
        logits = logits.scatter(-1, seen, torch.where(old > 0, old / penalty, old * penalty))
    if sampling.temperature > 0:
        logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.min_p > 0:
        shares = logits.softmax(-1)
        logits = logits.masked_fill(shares < sampling.min_p * shares.amax(-1, keepdim=True), -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        shares = ordered.softmax(-1)
        dropped = shares.cumsum(-1) - shares >= sampling.top_p
        dropped[:, 0] = False
        logits = logits.masked_fill(dropped.scatter(-1, order, dropped), -torch.inf)
    return logits


def drawn(logits: Float[Tensor, "B V"], sampling: Sampling, generators: Sequence[torch.Generator]
          ) -> Int[Tensor, " B"]:  # fmt: skip
    """A token a row, each by its generator, so that neighbours change nothing; on the CPU, so that no device does."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    V = logits.shape[-1]
    noise = torch.stack([torch.rand(V, generator=each, dtype=torch.float64, device="cpu") for each in generators])
    return (logits.double().cpu() - (-noise.clamp_min(1e-300).log()).log()).argmax(-1).to(logits.device)


@torch.inference_mode()
def generate(
    model: WaveGPT,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stop: Collection[int] = (),
    cached: bool = True,
    watch: Callable[[Float[Tensor, "B V"], Observed], None] | None = None,
) -> Iterator[Int[Tensor, " B"]]:
    """Stream tokens that follow prompts, a batch at a time.

    Prompts of unequal length are padded on the left. Beyond `context` tokens, key caches keep a window of the last
    ones; linear arms keep all. Without a cache the last `context` tokens are forwarded anew for each token.

    Args:
        model: in the mode that it is in; usually eval.
        prompts: ids, a list a row.
        max_new_tokens: at most.
        sampling: how they are drawn; null: the defaults of `Sampling`.
        stop: ids that end a row; such a row repeats its id until all rows have ended.
        cached: false forwards everything anew.
        watch: called before each draw with the last token's logits and what was observed of the forward pass.

    Raises:
        ValueError: no prompt, an empty one, or an id outside of the vocabulary.
    """
    sampling = sampling or Sampling()
    assert model.config.vocab_size is not None
    if not prompts or not all(prompts):
        raise ValueError("a prompt is empty; give at least one token, such as the end of text")
    if (wrong := next((i for ids in prompts for i in ids if not 0 <= i < model.config.vocab_size), None)) is not None:
        raise ValueError(f"a prompt has the id {wrong}, outside of the vocabulary of {model.config.vocab_size}")
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in prompts], device=device)
    segments = torch.tensor([[_PADDING] * (longest - len(row)) + [_REAL] * len(row) for row in prompts], device=device)
    padded = bool((segments == _PADDING).any())
    generators = [torch.Generator().manual_seed((sampling.seed + row) % 2**63) for row in range(len(prompts))]
    cache = model.new_cache() if cached else None
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    new = ids if model.config.attention.linear and cached else ids[:, -model.config.context :]
    stops = torch.tensor(sorted(stop), device=device)
    for _ in range(max_new_tokens):
        own = segments[:, -new.shape[1] :] if padded else None
        observed = Observed(with_features=True) if watch else None
        logits = model(new, segments=own, cache=cache, observed=observed, last=True)[:, -1]
        if watch and observed:
            watch(logits, observed)
        # Padding counts as seen; so that it penalises nothing, it repeats the row's last token.
        seen = torch.where(segments == _REAL, ids, ids[:, -1:])
        token = drawn(filtered(logits, sampling, seen), sampling, generators)
        token = torch.where(ended, ids[:, -1], token)
        yield token
        ids = torch.cat([ids, token[:, None]], dim=1)
        segments = torch.cat([segments, torch.ones_like(segments[:, :1])], dim=1)
        ended = ended | torch.isin(token, stops)
        if bool(ended.all()):
            return
        new = token[:, None] if cached else ids[:, -model.config.context :]


def stream_text(
    tokens: Iterator[int], decode: Callable[[list[int]], str], stop: Sequence[str] = (), end: Collection[int] = ()
) -> Iterator[str]:
    """Pieces of text of one row's tokens, as soon as they are certain.

    Half a character of several bytes is held back until it is whole, and what may begin a stop string until it is none.
    The text ends before the first stop string, and before an id in `end`.

    >>> list(stream_text(iter([72, 105, 33, 33]), lambda ids: bytes(ids).decode(), stop=["!"]))
    ['H', 'i']
    """
    ids: list[int] = []
    shown = 0
    text = ""
    for token in tokens:
        if token in end:
            break
        ids.append(token)
        text = decode(ids)
        if found := [at for at in (text.find(each) for each in stop if each) if at >= 0]:
            if piece := text[shown : min(found)]:
                yield piece
            return
        safe = len(text.rstrip("\ufffd"))
        safe = min([safe, *(safe - held for each in stop if (held := _overlap(text[:safe], each)))])
        if safe > shown:
            yield text[shown:safe]
            shown = safe
    if text[shown:]:
        yield text[shown:]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text begin the stop string."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
