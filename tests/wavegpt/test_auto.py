"""An exported folder by transformers' Auto classes: the same logits and texts as by `wavegpt.load`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import wavegpt
import wavegpt.auto
from datamodules.text.tokenizer import TextTokenizer
from tests.wavegpt.arms import ARMS, CONTEXT, V, model_of, some_ids

END = 3
# An arm of each kind of cache and embedding, and one whose table its export leaves out.
NAMES = ("baseline", "wave", "integrated-softmax", "integrated-sum", "source/interference", "tied", "learned")


def exported(name: str, folder: Path) -> tuple[Any, wavegpt.WaveGPT]:
    """By transformers, and by `load`."""
    wavegpt.save(model_of(ARMS[name], torch.float32), folder, END)
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    return model, wavegpt.load(folder)


def greedy(model: wavegpt.WaveGPT, ids: torch.Tensor, new: int, cached: bool = True) -> torch.Tensor:
    tokens = wavegpt.generate(model, ids.tolist(), new, wavegpt.Sampling(temperature=0), (END,), cached)
    return torch.stack(list(tokens), dim=1)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_model(name: str, tmp_path: Path) -> None:
    """Logits equal to the bit; greedy texts too, by the caches and without, beyond the context."""
    theirs, ours = exported(name, tmp_path)
    assert not theirs.training
    ids = some_ids(2, 9)
    assert torch.equal(theirs(ids).logits, ours(ids))
    found = theirs(ids, labels=ids)
    expected = torch.nn.functional.cross_entropy(ours(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert torch.equal(found.loss, expected)
    mask = torch.ones_like(ids)
    for cached in (True, False):
        text = theirs.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=CONTEXT, use_cache=cached)
        expected = greedy(ours, ids, CONTEXT, cached)
        assert torch.where(text[:, 9:] == END, END, text[:, 9:]).tolist() == expected.tolist()
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.vocab_size, config.num_hidden_layers, config.max_position_embeddings) == (V, 2, CONTEXT)


@pytest.mark.parametrize("name", ["wave", "integrated-sum"])
def test_padding_on_the_left_and_beams(name: str, tmp_path: Path) -> None:
    theirs, ours = exported(name, tmp_path)
    ids = some_ids(2, 7)
    padded = torch.cat([torch.full((1, 3), END), ids[:1, :4]], dim=1)
    both = torch.cat([padded, ids[1:]])
    mask = torch.ones_like(both)
    mask[0, :3] = 0
    text = theirs.generate(both, attention_mask=mask, do_sample=False, max_new_tokens=6)
    for row, prompt in enumerate((ids[:1, :4], ids[1:])):
        alone = greedy(ours, prompt, 6)[0].tolist()
        assert text[row, 7 : 7 + len(alone)].tolist() == alone
    beams = [
        theirs.generate(both, attention_mask=mask, do_sample=False, max_new_tokens=6, num_beams=3, use_cache=cached)
        for cached in (True, False)
    ]
    assert beams[0].tolist() == beams[1].tolist()


def test_what_transformers_saves_both_read(tmp_path: Path) -> None:
    theirs, ours = exported("wave", tmp_path / "one")
    theirs.save_pretrained(tmp_path / "two")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "two")
    for model in (again, wavegpt.auto.WaveGPTForCausalLM(again.config)):
        assert model.state_dict().keys() == theirs.state_dict().keys()
    ids = some_ids()
    assert torch.equal(again(ids).logits, ours(ids))
    assert torch.equal(wavegpt.load(tmp_path / "two")(ids), ours(ids))
    assert again.generation_config.eos_token_id == END


def test_half_precision_keeps_the_angles(tmp_path: Path) -> None:
    theirs, ours = exported("wave", tmp_path)
    half = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.model.embedding.rotation.dtype == torch.float32
    assert torch.equal(half(some_ids()).logits, ours.to(torch.bfloat16)(some_ids()))
    assert half.model.embedding.rotation.equal(theirs.model.embedding.rotation)


def test_the_tokenizer_needs_no_registration(tmp_path: Path) -> None:
    """In a process that never imports `wavegpt.auto`; a mark that a text holds stays text."""
    tokenizer = TextTokenizer.train(["a small dog walks", "the large dog sees"], 270)
    wavegpt.save(model_of(ARMS["wave"], torch.float32), tmp_path, tokenizer.end)
    tokenizer.save(tmp_path)
    text = "a small dog <|endoftext|>"
    script = (
        "import json, sys; from transformers import AutoTokenizer; t = AutoTokenizer.from_pretrained(sys.argv[1]); "
        "print(json.dumps([type(t).__name__, t(sys.argv[2])['input_ids'], t.eos_token_id]))"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path, text], capture_output=True, text=True, check=True)
    name, ids, end = json.loads(done.stdout)
    assert (name, ids, end) == (name, tokenizer.encode(text).tolist(), tokenizer.end)
    assert type(AutoTokenizer.from_pretrained(tmp_path)).__name__ == name
