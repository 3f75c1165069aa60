"""An encoder that is no T5, from the command line: what it reads, learns and leaves."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, T5EncoderModel

from datamodules import WordNetDataModule
from modulators import (
    FieldModulator,
    LemmaObjective,
    ModulatedEncoder,
    RelationalObjective,
    load_modulated,
    relational_lift,
)
from probes.alignment.encoders import open_encoder
from tests.runs import main, small_wordnet, tiny_backbone
from tests.tiny_families import MASKED, build
from tests.word_tokenizer import save_word_tokenizer

STEPS = 8  # in the second of the epochs, of five steps each
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_wordnet(tmp_path_factory.mktemp("nltk_data")))


@pytest.fixture(scope="module")
def bert(wordnet: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT whose tokenizer knows the words of the small WordNet, and puts [CLS] and [SEP] around a text."""
    folder = str(tmp_path_factory.mktemp("backbone") / "bert")
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    n_words = save_word_tokenizer(folder, wordnet, dict(zip(names, SPECIAL, strict=True)), "[CLS] $A [SEP]")
    build("bert", head=False, vocab_size=n_words).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def given(wordnet: str, bert: str) -> list[str]:
    data = [f"--data.nltk_data={wordnet}", "--data.batch_size=32", "--data.val_fraction=0.2"]
    model = [f"--model.backbone={bert}", "--model.schedule=constant"]
    return ["--config=encoder.yaml", *model, *data, "--relational.bootstrap=40", "--pentachoron.stop=false"]


@pytest.fixture(scope="module")
def run(given: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    main()(["fit", *given, f"--output={folder}", f"--trainer.max_steps={STEPS}"])
    return folder


def test_report_holds_what_an_encoder_has(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    assert (report["run"]["outcome"], report["run"]["steps"]) == ("finished", STEPS)
    assert report["model"]["describe"]["class"] == "ModulatedEncoder"
    assert {"original", "static", "random"} == report["relational"]["baseline"].keys()
    assert report["relational"]["last"]["pearson_lift"] != 0
    assert set(report["loss"]) == {"train"}
    assert [row.keys() for row in report["texts"]] == [{"prompt", "inspection"}] * 3
    assert not [key for key in report["run"]["metrics"] if key.startswith("val/")]
    page = (run / "report.html").read_text()
    assert "nan" not in page.lower().split("<script")[0]


def test_definitions_are_read_as_the_tokenizer_makes_them(wordnet: str, bert: str) -> None:
    """No prefix, special tokens at both ends; the probe reads the same."""
    data = WordNetDataModule(bert, nltk_data=wordnet)
    data.setup()
    tokenizer = AutoTokenizer.from_pretrained(bert)
    texts = list(data.entries.definitions)
    assert [row.tolist() for row in data.corpus.sources] == [tokenizer(text).input_ids for text in texts]
    assert [row.tolist() for row in open_encoder(bert).tokens(texts)] == [row.tolist() for row in data.corpus.sources]
    described = data.describe()["mean_source_tokens"]
    assert described == pytest.approx(sum(len(text.split()) for text in texts) / len(texts))


def test_resumed_run_is_the_same_to_the_bit(run: Path, given: list[str], tmp_path: Path) -> None:
    quick = "--report.figures=false"
    main()(["fit", *given, quick, f"--output={tmp_path / 'run'}", f"--trainer.max_steps={STEPS - 1}"])
    main()(["fit", f"--resume={tmp_path / 'run'}", quick, f"--trainer.max_steps={STEPS}"])
    whole, resumed = (load_file(folder / "modulator/modulator.safetensors") for folder in (run, tmp_path / "run"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_artefact_opens_on_its_backbone(run: Path, bert: str) -> None:
    model, tokenizer = load_modulated(run)
    tokens = tokenizer(["one", "two"], return_tensors="pt", padding=True)
    bare = AutoModel.from_pretrained(bert, add_pooling_layer=False).eval()
    with torch.no_grad():
        modulated = model(**tokens).last_hidden_state
        with model.modulation.disabled():
            assert torch.equal(model(**tokens).last_hidden_state, bare(**tokens).last_hidden_state)
    assert not torch.equal(modulated, bare(**tokens).last_hidden_state)
    encoder = open_encoder(str(run))
    assert (encoder.form.prefix, encoder.clouds(random=True)) == ("", ["modulated", "original", "static", "random"])


def test_lift_without_the_trainer_is_the_runs(run: Path, wordnet: str) -> None:
    found = relational_lift(*load_modulated(run), bootstrap=0, val_fraction=0.2, nltk_data=wordnet)
    last = json.loads((run / "report.json").read_text())["relational"]["last"]
    for key in ("pearson", "pearson_lift", "held_out/pearson_lift", "preservation"):
        assert found[key] == pytest.approx(last[key], abs=1e-5)


def test_a_t5_without_its_decoder_too(wordnet: str, given: list[str], tmp_path: Path) -> None:
    backbone = tiny_backbone(tmp_path / "t5")
    T5EncoderModel.from_pretrained(backbone).save_pretrained(backbone)
    words = [word for word in given if not word.startswith("--model.backbone")]
    main()(["fit", *words, f"--model.backbone={backbone}", f"--output={tmp_path / 'run'}", "--trainer.max_steps=2"])
    found = relational_lift(*load_modulated(tmp_path / "run"), bootstrap=0, val_fraction=0.2, nltk_data=wordnet)
    last = json.loads((tmp_path / "run" / "report.json").read_text())["relational"]["last"]
    assert found["pearson_lift"] == pytest.approx(last["pearson_lift"], abs=1e-5)


@pytest.mark.parametrize("model_type", ["roberta", "distilbert", "mpnet", "modernbert", "t5"])
def test_any_encoder_learns(model_type: str, tmp_path: Path) -> None:
    """One step on each family, by hand: the gradient reaches the modulator, and nothing else."""
    build(model_type).save_pretrained(tmp_path)
    module = ModulatedEncoder(FieldModulator, str(tmp_path))
    module.configure_model()
    module.train()
    ids = torch.tensor([[4, 5, 6, 1], [7, 8, 1, 0]])
    batch: dict[str, Any] = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    _, hidden = module._training_pass(batch, False)
    assert torch.equal(hidden, module.encode(**batch))
    hidden.square().mean().backward()
    learns = {name for name, p in module.named_parameters() if p.grad is not None}
    assert learns
    assert learns <= {name for name, _ in module.named_parameters() if name.startswith("modulator.")}


@pytest.mark.parametrize("objective", [LemmaObjective(), RelationalObjective()])
def test_task_without_a_head_is_refused(objective: Any, bert: str) -> None:
    assert objective.needs_task
    with pytest.raises(ValueError, match=r"^model\.objective: this \w+ needs the loss of a masked-.* is a BertModel"):
        ModulatedEncoder(FieldModulator, bert, objective=objective)


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    build("gpt2").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"^model\.backbone: .* is a gpt2; it must be an encoder of text"):
        ModulatedEncoder(FieldModulator, str(tmp_path))


def test_checkpointing_computes_the_same(bert: str) -> None:
    """And in evaluation the blocks do not checkpoint."""
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        module = ModulatedEncoder(FieldModulator, bert, gradient_checkpointing=checkpointing)
        module.configure_model()
        module.train()
        ids = torch.tensor([[2, 5, 6, 3]])
        _, hidden = module._training_pass({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, False)
        hidden.square().mean().backward()
        found.append([p.grad for p in module.modulator.parameters()])
        assert all(block.training == checkpointing for block in module._checkpointed_blocks())
        assert not module.eval()._checkpointed_blocks()[0].training
    torch.testing.assert_close(*found)


# The masked-language-model loss, as an objective's task


@pytest.fixture(scope="module")
def masked_bert(bert: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("backbone") / "masked")
    tokenizer = AutoTokenizer.from_pretrained(bert)
    tokenizer.save_pretrained(folder)
    build("bert", vocab_size=len(tokenizer)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("model_type", sorted(MASKED))
def test_masked_loss_is_the_families_own(model_type: str, tmp_path: Path) -> None:
    """The head alone, on hidden places alone, gives the loss of the whole model on all places."""
    build(model_type).save_pretrained(tmp_path)
    module = ModulatedEncoder(FieldModulator, str(tmp_path), objective=LemmaObjective())
    module.configure_model()
    ids, at, targets = torch.tensor([[4, 5, 6, 1], [7, 8, 1, 0]]), torch.tensor([1, 4, 5]), torch.tensor([9, 10, 11])
    labels = torch.full((8,), -100).index_put((at,), targets).view(2, 4)
    mask = (ids > 0).long()
    batch = {"input_ids": ids, "attention_mask": mask, "masked_ids": ids, "masked_at": at, "masked_targets": targets}
    loss, _ = module._training_pass({**batch, "masked_weight": 1 / 3}, True)
    assert loss is not None
    own = module.model(input_ids=ids, attention_mask=mask, labels=labels).loss
    assert float(loss.detach()) == pytest.approx(float(own.detach()), abs=1e-5)
    nothing = torch.zeros(0, dtype=torch.long)
    none, _ = module._training_pass(
        {**batch, "masked_at": nothing, "masked_targets": nothing, "masked_weight": 0}, True
    )
    assert none is not None
    assert float(none.detach()) == 0
    none.backward()


def test_relation_and_hidden_tokens_are_learnt_together(given: list[str], masked_bert: str, tmp_path: Path) -> None:
    words = [word for word in given if not word.startswith("--model.backbone")]
    words += [f"--model.backbone={masked_bert}", "--model.objective.task=0.1", "--data.mask_share=0.3"]
    quick = "--report.figures=false"
    for name, steps in (("whole", STEPS), ("run", STEPS - 1)):
        main()(["fit", *words, quick, f"--output={tmp_path / name}", f"--trainer.max_steps={steps}"])
    main()(["fit", f"--resume={tmp_path / 'run'}", quick, f"--trainer.max_steps={STEPS}"])
    whole, resumed = (load_file(tmp_path / name / "modulator/modulator.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    report = json.loads((tmp_path / "whole" / "report.json").read_text())
    assert report["data"]["mask_share"] == 0.3
    assert {"train/task", "train/pearson_all"} <= report["run"]["metrics"].keys()
    model, _ = load_modulated(tmp_path / "whole")  # without its head
    assert type(model).__name__ == "BertModel"
    with pytest.raises(SystemExit):
        main()(["fit", *words, "--data.mask_share=null", f"--output={tmp_path / 'none'}"])


def test_bare_head_is_the_transformers(masked_bert: str) -> None:
    """What is loaded with a head encodes as what is loaded without one."""
    with_head = ModulatedEncoder(FieldModulator, masked_bert, objective=LemmaObjective())
    bare = ModulatedEncoder(FieldModulator, masked_bert)
    ids = torch.tensor([[2, 5, 6, 3]])
    found = []
    for module in (with_head, bare):
        module.configure_model()
        with module.handle.disabled():
            found.append(module.encode(ids, torch.ones_like(ids)))
    assert torch.equal(*found)
    own = AutoModelForMaskedLM.from_pretrained(masked_bert).eval()
    assert torch.equal(found[0], own.bert(ids, torch.ones_like(ids)).last_hidden_state)
