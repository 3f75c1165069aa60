"""Human judgement at the end of a run: the figures of `modulators.word_similarity`, and files that cannot be read."""

import json
from pathlib import Path

import pytest

from cli.check import check
from cli.command import read_command
from modulant.corpus.word_pairs import read_sense_pairs
from modulant.lexicon import Lexicon
from modulators import load_modulated, word_similarity
from modulators.similarity import mean_embedding
from tests.runs import main, small_wordnet, tiny_backbone


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is measured on pairs of its own WordNet's words."""
    folder = tmp_path_factory.mktemp("similar")
    wordnet = small_wordnet(folder / "nltk_data")
    lexicon = Lexicon.load(str(wordnet))
    words = sorted({lexicon.lemmas_of(row)[0] for row in range(0, len(lexicon), 5)})[:14]
    lines = [f"{a},{b},{i % 5}" for i, (a, b) in enumerate(zip(words, words[1:], strict=False))]
    (folder / "pairs.csv").write_text("\n".join(["word1,word2,rating", *lines]) + "\n")
    argv = ["fit", "--config", "field.yaml", f"--data.nltk_data={wordnet}", "--trainer.max_epochs=1"]
    argv += ["--model.backbone", tiny_backbone(folder / "backbone"), "--report.figures=false", "--model.lr=0.05"]
    argv += ["--relational.bootstrap=40", f"--similarity.files=[{folder / 'pairs.csv'}]"]
    main()([*argv, "--output", str(folder / "run")])
    return folder


def test_the_figures_are_those_of_a_library_user(run: Path) -> None:
    logged = json.loads((run / "run" / "report.json").read_text())["run"]["metrics"]
    model, tokenizer = load_modulated(run / "run" / "modulator")
    lexicon = Lexicon.load(str(run / "nltk_data"))

    def hidden(ids: object, mask: object) -> object:
        return model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state

    embed = mean_embedding(hidden, tokenizer)  # type: ignore[arg-type]

    def before(texts: list[str]) -> object:
        with model.modulation.disabled():
            return embed(texts)

    found = word_similarity(read_sense_pairs([run / "pairs.csv"], lexicon), before, embed)  # type: ignore[arg-type]
    for key in ("pairs/before", "pairs/after", "pairs/change_low", "pairs/n"):
        assert logged[f"similarity/{key}"]["last"] == pytest.approx(found[key], abs=1e-6)
    assert "similarity/pairs/untrained/n" in logged


def test_a_sharded_backbone_is_measured_afterwards(tmp_path: Path) -> None:
    """The first process alone would wait for the others' shards without end."""
    (tmp_path / "pairs.txt").write_text("cat dog 1\ncat house 2\ndog house 3\n")
    words = ["fit", "--config", "field.yaml", f"--similarity.files=[{tmp_path / 'pairs.txt'}]"]
    check(read_command(words))
    with pytest.raises(ValueError, match=r"similarity.files: a sharded backbone .* probe.py similarity RUN"):
        check(read_command([*words, "--config", "fsdp.yaml"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "similarity.files: .*cannot be read"), ("cat dog\n", "similarity.files: .*line 1")],
)
def test_a_bad_file_is_known_before_anything_is_loaded(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "pairs.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        check(read_command(["fit", "--config", "field.yaml", f"--similarity.files=[{tmp_path / 'pairs.txt'}]"]))
