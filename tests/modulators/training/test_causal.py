"""A causal language model, from the command line: what it reads, learns, answers and leaves."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from callbacks import Divergence
from datamodules import WordNetDataModule
from modulant.corpus.forms import QUESTION
from modulators import FieldModulator, LerpModulator, ModulatedCausalLM, load_modulated, relational_lift
from probes.alignment.encoders import open_encoder
from tests.runs import main, small_wordnet
from tests.tiny_families import CAUSAL, build
from tests.word_tokenizer import save_word_tokenizer

STEPS = 8  # in the second of the epochs, of five steps each
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_wordnet(tmp_path_factory.mktemp("nltk_data")))


@pytest.fixture(scope="module")
def backbones(wordnet: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A Llama whose tokenizer begins a text with a token, and a GPT-2 whose tokenizer has neither that nor padding."""
    root = tmp_path_factory.mktemp("backbones")
    bare = {name: token for name, token in SPECIAL.items() if name in ("unk_token", "eos_token")}
    for model_type, special, template in (("llama", SPECIAL, "[BOS] $A"), ("gpt2", bare, "$A")):
        folder = str(root / model_type)
        n_words = save_word_tokenizer(folder, wordnet, special, template)
        build(model_type, vocab_size=n_words).save_pretrained(folder)
    return {path.name: str(path) for path in root.iterdir()}


@pytest.fixture(scope="module")
def given(wordnet: str, backbones: dict[str, str]) -> list[str]:
    data = [f"--data.nltk_data={wordnet}", "--data.batch_size=32", "--data.val_fraction=0.2"]
    model = [f"--model.backbone={backbones['llama']}", "--model.schedule=constant"]
    return ["--config=causal.yaml", *model, *data, "--relational.bootstrap=40", "--pentachoron.stop=false"]


@pytest.fixture(scope="module")
def run(given: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    main()(["fit", *given, f"--output={folder}", f"--trainer.max_steps={STEPS}"])
    return folder


def module_on(folder: str, modulator: Any = FieldModulator, **more: Any) -> Any:
    torch.manual_seed(0)
    module = ModulatedCausalLM(modulator, folder, **more)
    module.configure_model()
    return module


def perturbed(module: Any) -> Any:
    with torch.no_grad():
        for parameter in module.modulator.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def one_batch(folder: str, wordnet: str) -> dict[str, Any]:
    data = WordNetDataModule(folder, nltk_data=wordnet)
    data.setup()
    return dict(next(iter(data.val_dataloader())))


def test_report_holds_what_a_causal_model_has(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    assert (report["run"]["outcome"], report["run"]["steps"]) == ("finished", STEPS)
    assert report["model"]["describe"]["class"] == "ModulatedCausalLM"
    assert report["data"]["task"] == "definition → lemma"
    assert {"original", "static", "random"} == report["relational"]["baseline"].keys()
    assert report["relational"]["last"]["pearson_lift"] != 0
    assert {"val/loss", "val/token_accuracy", "val/exact_match", "train/task"} <= report["run"]["metrics"].keys()
    assert report["texts"][0].keys() == {"prompt", "lemma", "original", "modulated", "inspection"}


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_definitions_and_lemmas_are_read_as_one_text(name: str, backbones: dict[str, str], wordnet: str) -> None:
    """Begin token, definition, question, lemma: the tokens of the joined text, without the tokenizer's end."""
    data = WordNetDataModule(backbones[name], nltk_data=wordnet)
    data.setup()
    tokenizer = AutoTokenizer.from_pretrained(backbones[name])
    for row, entry in enumerate(data.entries[:20]):
        whole = tokenizer(f"{entry.definition}{QUESTION} {entry.lemma}").input_ids
        source, target = data.corpus.sources[row].tolist(), data.corpus.targets[row].tolist()
        asked = data.form.asked(tokenizer)
        assert [*data.form.begin, *source, *asked, *target] == [*whole, tokenizer.eos_token_id]
        assert data.form.asks(tokenizer, entry.definition) == [*data.form.begin, *source, *asked]
    assert data.form.begin == ((2,) if name == "llama" else ())
    assert data.describe()["mean_source_tokens"] == pytest.approx(data.corpus.sources.lengths.mean())


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@torch.no_grad()
def test_padded_batch_gives_what_each_row_gives_alone(name: str, backbones: dict[str, str], wordnet: str) -> None:
    """Loss, representations and greedy answers of rows of unequal length, padding between definition and question."""
    module = perturbed(module_on(backbones[name]))
    batch = one_batch(backbones[name], wordnet)
    assert len(set(batch["attention_mask"].sum(1).tolist())) > 1
    loss, hidden = module._training_pass(batch, True)
    _, without = module._training_pass(batch, False)
    answers = module._answer(batch, 3)
    losses, tokens = 0.0, 0
    end = module.model.config.eos_token_id
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        definition = batch["input_ids"][row, :length].tolist()
        target = [label for label in batch["labels"][row].tolist() if label >= 0]
        prompt = [*module.form.begin, *definition, *module._question.tolist()]
        output = module.model(torch.tensor([[*prompt, *target]]), output_hidden_states=True)
        scores = output.logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        losses -= sum(float(scores[i, token]) for i, token in enumerate(target))
        tokens += len(target)
        own = output.hidden_states[-1][0, len(module.form.begin) : len(module.form.begin) + length]
        torch.testing.assert_close(hidden[row, :length], own, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(without[row, :length], own, atol=2e-5, rtol=1e-4)
        said: list[int] = []
        while len(said) < 3 and end not in said:
            said.append(int(module.model(torch.tensor([[*prompt, *said]])).logits[0, -1].argmax()))
        assert answers[row, : len(said)].tolist() == said
    assert float(loss) == pytest.approx(losses / tokens, rel=1e-4)


@pytest.mark.parametrize("model_type", sorted(CAUSAL))
def test_any_family_learns(model_type: str, backbones: dict[str, str], tmp_path: Path) -> None:
    """Its own loss, and a gradient that reaches the modulator and nothing else."""
    folder = str(tmp_path / model_type)
    tokenizer = AutoTokenizer.from_pretrained(backbones["llama"])
    tokenizer.save_pretrained(folder)
    build(model_type, vocab_size=len(tokenizer)).save_pretrained(folder)
    module = module_on(folder)
    module.train()
    ids = torch.tensor([[4, 5, 6], [7, 8, 0]])
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.tensor([[9, 3], [10, -100]])}
    loss, hidden = module._training_pass(batch, True)
    (loss + hidden.square().mean()).backward()
    learns = {name for name, p in module.named_parameters() if p.grad is not None}
    assert learns
    assert learns <= {name for name, _ in module.named_parameters() if name.startswith("modulator.")}
    with module.handle.disabled():
        asked = module._asked(batch, batch["labels"])
        own = AutoModelForCausalLM.from_pretrained(folder).eval()
        begin = len(module._begin)
        first = torch.cat([asked["input_ids"][:1]], 1)  # the row without padding
        logits = own(first).logits[:, -3:-1]
        torch.testing.assert_close(module(batch)[1][:1], logits, atol=1e-5, rtol=1e-4)
        whole = own(first, output_hidden_states=True).hidden_states[-1][:, begin : begin + 3]
        torch.testing.assert_close(module.encode(ids, batch["attention_mask"])[:1], whole, atol=1e-5, rtol=1e-4)


def test_resumed_run_is_the_same_to_the_bit(run: Path, given: list[str], tmp_path: Path) -> None:
    quick = "--report.figures=false"
    main()(["fit", *given, quick, f"--output={tmp_path / 'run'}", f"--trainer.max_steps={STEPS - 1}"])
    main()(["fit", f"--resume={tmp_path / 'run'}", quick, f"--trainer.max_steps={STEPS}"])
    whole, resumed = (load_file(folder / "modulator/modulator.safetensors") for folder in (run, tmp_path / "run"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_artefact_opens_on_its_backbone(run: Path, backbones: dict[str, str]) -> None:
    model, tokenizer = load_modulated(run)
    bare = AutoModelForCausalLM.from_pretrained(backbones["llama"]).eval()
    ids = tokenizer(["one two"], return_tensors="pt").input_ids
    modulated = model(ids).logits
    with model.modulation.disabled():
        assert torch.equal(model(ids).logits, bare(ids).logits)
        assert torch.equal(model.generate(ids, max_new_tokens=4), bare.generate(ids, max_new_tokens=4))
    assert not torch.equal(modulated, bare(ids).logits)
    encoder = open_encoder(str(run))
    assert encoder.clouds(random=True) == ["modulated", "original", "static", "random"]


def test_lift_without_the_trainer_is_the_runs(run: Path, wordnet: str) -> None:
    found = relational_lift(*load_modulated(run), bootstrap=0, val_fraction=0.2, nltk_data=wordnet)
    last = json.loads((run / "report.json").read_text())["relational"]["last"]
    for key in ("pearson", "pearson_lift", "held_out/pearson_lift", "preservation"):
        assert found[key] == pytest.approx(last[key], abs=1e-5)


def test_it_is_asked_as_it_was_trained(run: Path, given: list[str], tmp_path: Path) -> None:
    """By predict and by the probe, which ask in batches and one by one."""
    import probe

    prompts = ["one", "two three four five", "six seven"]
    texts = tmp_path / "prompts.txt"
    texts.write_text("\n".join(prompts))
    main()(["predict", f"--resume={run}", f"--data.prompts={texts}", f"--output={tmp_path / 'asked'}"])
    rows = [json.loads(line) for line in (tmp_path / "asked/predictions.jsonl").read_text().splitlines()]
    said = tmp_path / "said.jsonl"
    assert probe.main(["talk", str(run), "--prompts", str(texts), "--output", str(said)]) == 0
    one_by_one = [json.loads(line) for line in said.read_text().splitlines()]
    assert [row["prompt"] for row in rows] == prompts
    assert [row["modulated"] for row in rows] == [row["modulated"]["text"] for row in one_by_one]
    assert [row["original"] for row in rows] == [row["original"]["text"] for row in one_by_one]


def test_lerp_starts_from_wordnet(given: list[str], tmp_path: Path) -> None:
    lerp = [word for word in given if not word.startswith("--config")]
    words = [
        "--config=lerp.yaml",
        "--model=ModulatedCausalLM",
        *lerp,
        "--model.modulator.n_geometric_dims=16",
        f"--output={tmp_path / 'run'}",
    ]
    main()(["fit", *words, "--trainer.max_steps=2", "--report.figures=false"])
    model, _ = load_modulated(tmp_path / "run")
    assert isinstance(model.modulator, LerpModulator)


def test_what_is_no_causal_model_is_refused(tmp_path: Path) -> None:
    build("bert").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"^model\.backbone: .* is a bert; it must be a causal language model"):
        ModulatedCausalLM(FieldModulator, str(tmp_path))


@torch.no_grad()
def test_softcapped_scores_are_capped(backbones: dict[str, str], tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(backbones["llama"])
    tokenizer.save_pretrained(tmp_path)
    build("gemma2", vocab_size=len(tokenizer), final_logit_softcapping=0.01).save_pretrained(tmp_path)
    module = module_on(str(tmp_path))
    ids = torch.tensor([[4, 5, 6]])
    logits: Tensor = module({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, :2]})[1]
    assert float(logits.abs().max()) <= 0.01


@torch.no_grad()
def test_loss_of_a_bf16_backbone_is_in_fp32(backbones: dict[str, str]) -> None:
    """Of one process as of one of several: the mean of what bf16 scores say, not rounded to bf16 itself."""
    module = module_on(backbones["llama"], backbone_dtype="bfloat16")
    ids = torch.tensor([[4, 5, 6], [7, 8, 0]])
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.tensor([[9, 3], [10, -100]])}
    alone, _ = module._training_pass(batch, True)
    shared, _ = module._training_pass({**batch, "weight": 1 / 3}, True)
    assert alone.dtype == shared.dtype == torch.float32
    assert float(alone) == pytest.approx(float(shared), rel=1e-6)


def test_broken_layer_is_named(backbones: dict[str, str]) -> None:
    """Weights that are finite, and activations that are not, from the second block on."""
    module = module_on(backbones["llama"])
    divergence = Divergence()
    ids = torch.tensor([[4, 5, 6]])
    divergence._batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, :1]}
    assert divergence._where(module) == "the decoder's layers are finite, what follows is not"
    with torch.no_grad():
        for matrix in (module.model.model.layers[1].mlp.up_proj, module.model.model.layers[1].mlp.down_proj):
            matrix.weight.fill_(1e30)
    assert divergence._where(module) == "first not finite in decoder layer 1"
