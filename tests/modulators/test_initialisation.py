"""Geometry before training: WordNet's goes in as it should, and each control takes away exactly one thing."""

import json
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modulant.lexicon import Lexicon
from modulators import FieldModulator, Geometry, LerpModulator, ModulatedT5
from modulators.initialisation import LexicalData, initial_geometry, leading_eigenpairs, wu_palmer
from tests.runs import main, small_wordnet

VOCABULARY, WIDTH, DIMS = 400, 24, 8


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.load()


@pytest.fixture(scope="module")
def words(lexicon: Lexicon) -> LexicalData:
    """150 synsets of all parts of speech, 20 of them with a synonym, a fifth held out."""
    rng = np.random.default_rng(1)
    synsets = rng.choice(len(lexicon), 150, replace=False)
    tokens = rng.choice(VOCABULARY, 170, replace=False)
    representations = torch.randn(150, WIDTH, generator=torch.Generator().manual_seed(2)) + 1
    return LexicalData(
        lexicon,
        np.sort(tokens),
        np.concatenate([synsets, synsets[:20]]),
        synsets,
        rng.random(150) < 0.2,
        representations,
    )


@pytest.fixture(scope="module")
def static() -> torch.Tensor:
    return torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(3))


def test_wu_palmer_is_the_elementwise_one_made_symmetric(lexicon: Lexicon, words: LexicalData) -> None:
    found = wu_palmer(lexicon, words.synsets)
    a, b = words.synsets[:, None], words.synsets[None, :]
    expected = (lexicon.taxonomy.wup_similarity(a, b) + lexicon.taxonomy.wup_similarity(b, a)) / 2
    np.fill_diagonal(expected, 1)
    np.testing.assert_allclose(found, np.nan_to_num(expected), atol=1e-6)


def test_leading_eigenpairs_by_lanczos_are_those_of_the_whole_decomposition() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((700, 700)))[0]
    matrix = (basis * np.linspace(1, 50, 700) ** 2) @ basis.T
    matrix = ((matrix + matrix.T) / 2).astype(np.float32)
    values, vectors = leading_eigenpairs(matrix, 12)
    wanted = np.linalg.eigvalsh(matrix.astype(np.float64))[::-1][:12]
    np.testing.assert_allclose(values, wanted, rtol=1e-4)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=0.05)  # of 2500: fp32
    again = leading_eigenpairs(matrix, 12)[1]
    np.testing.assert_array_equal(vectors, again)


def test_wordnets_points_go_to_their_tokens(words: LexicalData, static: torch.Tensor) -> None:
    initial = initial_geometry(Geometry(), words, static, DIMS)
    rows = initial.rows[torch.from_numpy(words.tokens)]
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(len(rows)))
    torch.testing.assert_close(rows[:20], rows[150:])  # synonyms share their synset's point
    unmatched = np.setdiff1d(np.arange(VOCABULARY), words.tokens)
    assert not initial.rows[unmatched].any()
    # Their cosines are the best of eight dimensions: they follow Wu–Palmer similarity, as the provenance says.
    cosines, similarity = (rows[:150] @ rows[:150].mT).numpy(), wu_palmer(words.lexicon, words.synsets)
    upper = np.triu_indices(150, 1)
    r = np.corrcoef(cosines[upper], similarity[upper])[0, 1]
    assert initial.provenance["reconstruction_correlation"] == pytest.approx(r, abs=1e-4)
    assert r > 0.5
    assert initial.provenance["wordnet"] == "3.0"
    assert initial.provenance["n_anchors"] == 150
    assert initial.provenance["tokens_by_neighbours"] == 0
    assert initial.provenance["eigenvalues"] == sorted(initial.provenance["eigenvalues"], reverse=True)


def test_the_projection_is_a_scaled_rotation_onto_the_leading_axes(words: LexicalData, static: torch.Tensor) -> None:
    initial = initial_geometry(Geometry(), words, static, DIMS)
    scale = 0.1 * words.representations.norm(dim=-1).mean()
    gram = initial.projection.mT @ initial.projection
    torch.testing.assert_close(gram, scale**2 * torch.eye(DIMS), atol=1e-5, rtol=0)
    centred = words.representations - words.representations.mean(0)
    axes = np.linalg.svd(centred.numpy(), full_matrices=False)[2][:DIMS]
    outside = initial.projection.mT.numpy() - initial.projection.mT.numpy() @ axes.T @ axes
    np.testing.assert_allclose(outside, 0, atol=1e-5)


def test_alignment_finds_a_rotation_that_is_there(words: LexicalData, static: torch.Tensor) -> None:
    """An encoder whose representations are the points themselves, rotated, aligns better than one of noise."""
    points = initial_geometry(Geometry(), words, static, DIMS).rows[torch.from_numpy(words.tokens[:150])]
    turned = points @ torch.linalg.qr(torch.randn(DIMS, DIMS, generator=torch.Generator().manual_seed(5))).Q
    like = words._replace(representations=F.pad(turned, (0, WIDTH - DIMS)))
    aligned = initial_geometry(Geometry(), like, static, DIMS).provenance["alignment_cosine"]
    noise = initial_geometry(Geometry(), words, static, DIMS).provenance["alignment_cosine"]
    assert aligned > 0.8 > noise


def test_shuffled_keeps_every_point_and_the_projection(words: LexicalData, static: torch.Tensor) -> None:
    wordnet, shuffled = (initial_geometry(Geometry(kind=kind), words, static, DIMS) for kind in ("wordnet", "shuffled"))
    kept = torch.from_numpy(words.tokens)
    a, b = wordnet.rows[kept], shuffled.rows[kept]
    assert sorted(map(tuple, a.tolist())) == sorted(map(tuple, b.tolist()))
    assert (a != b).any(-1).float().mean() > 0.9
    torch.testing.assert_close(wordnet.projection, shuffled.projection, rtol=0, atol=0)
    other = initial_geometry(Geometry(kind="shuffled", seed=1), words, static, DIMS)
    assert not torch.equal(other.rows, shuffled.rows)


def test_part_of_speech_knows_nothing_else(words: LexicalData, static: torch.Tensor) -> None:
    initial = initial_geometry(Geometry(kind="part_of_speech"), words, static, DIMS)
    rows = initial.rows[torch.from_numpy(words.tokens)]
    pos = np.char.replace(words.lexicon.pos[words.token_synsets], "s", "a")  # satellites are adjectives
    same = torch.from_numpy(pos[:, None] == pos[None, :]).float()
    torch.testing.assert_close(rows @ rows.mT, same)


def test_random_points_are_unit_vectors_without_wordnet(words: LexicalData, static: torch.Tensor) -> None:
    initial = initial_geometry(Geometry(kind="random"), words, static, DIMS)
    rows = initial.rows[torch.from_numpy(words.tokens)]
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(len(rows)))
    assert "reconstruction_correlation" not in initial.provenance
    torch.testing.assert_close(initial.rows, initial_geometry(Geometry(kind="random"), words, static, DIMS).rows)


def test_training_anchors_are_blind_to_what_is_held_out(words: LexicalData, static: torch.Tensor) -> None:
    """Other synsets in the held-out places change nothing for anybody."""
    rng = np.random.default_rng(8)
    others = np.setdiff1d(np.arange(len(words.lexicon)), words.synsets)
    moved = words.synsets.copy()
    moved[words.held_out] = rng.choice(others, int(words.held_out.sum()), replace=False)
    changed = words._replace(synsets=moved, token_synsets=np.concatenate([moved, moved[:20]]))
    geometry = Geometry(anchors="training")
    a, b = (initial_geometry(geometry, known, static, DIMS) for known in (words, changed))
    torch.testing.assert_close(a.rows, b.rows, rtol=0, atol=0)
    torch.testing.assert_close(a.projection, b.projection, rtol=0, atol=0)
    assert a.provenance["anchors_held_out"] == 0
    assert a.provenance["tokens_by_neighbours"] == int(
        np.isin(words.token_synsets, words.synsets[words.held_out]).sum()
    )


def test_a_sample_of_anchors_is_seeded_and_leaves_the_rest_to_neighbours(
    words: LexicalData, static: torch.Tensor
) -> None:
    initial = initial_geometry(Geometry(n_anchors=100, n_neighbours=3), words, static, DIMS)
    assert initial.provenance["n_anchors"] == 100
    assert initial.provenance["tokens_by_neighbours"] >= 50
    rows = initial.rows[torch.from_numpy(words.tokens)]
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(len(rows)))
    torch.testing.assert_close(
        initial.rows,
        initial_geometry(Geometry(n_anchors=100, n_neighbours=3), words, static, DIMS).rows,
        rtol=0,
        atol=0,
    )


def test_unmatched_tokens_can_be_random_as_in_the_source(words: LexicalData, static: torch.Tensor) -> None:
    rows = initial_geometry(Geometry(unmatched="random"), words, static, DIMS).rows
    unmatched = np.setdiff1d(np.arange(VOCABULARY), words.tokens)
    assert rows[unmatched].norm(dim=-1).mean() == pytest.approx(DIMS**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "euclid"}, "kind is 'euclid'; it must be one of wordnet, shuffled"),
        ({"anchors": "some"}, "anchors is 'some'; it must be all or training"),
        ({"unmatched": "one"}, "unmatched is 'one'; it must be zero or random"),
        ({"n_anchors": 1}, "n_anchors is 1; it must be an integer of at least 2"),
        ({"n_neighbours": 0}, "n_neighbours is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which would check the type before us
    with pytest.raises(ValueError, match=message):
        Geometry(**arguments)


def test_what_cannot_be_initialised(words: LexicalData, static: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="n_geometric_dims is 25; to be aligned with a stream of width 24"):
        initial_geometry(Geometry(), words, static, WIDTH + 1)
    with pytest.raises(ValueError, match="n_anchors is 151; there are 150 to choose from"):
        initial_geometry(Geometry(n_anchors=151), words, static, DIMS)


def test_a_modulator_without_embeddings_is_refused(backbone: str) -> None:
    with pytest.raises(ValueError, match="a FieldModulator has no geometric embeddings"):
        ModulatedT5(FieldModulator, backbone=backbone, geometry=Geometry())


def test_no_geometry_leaves_only_the_alphas_to_learn(backbone: str) -> None:
    module = ModulatedT5(LerpModulator, backbone=backbone, geometry=Geometry(kind="none"))
    assert [name for name, p in module.modulator.named_parameters() if p.requires_grad] == ["alpha_logits"]


def test_a_run_lays_out_once_saves_and_resumes(tmp_path: Path, backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit, resume and validate by the command line: the initial geometry comes back, and is not made again."""
    monkeypatch.chdir(tmp_path)
    wordnet = small_wordnet(tmp_path / "nltk_data")
    common = [
        f"--data.nltk_data={wordnet}", f"--model.backbone={backbone}", "--data.batch_size=16",
        "--model.modulator.init_args.n_geometric_dims=8", "--report.figures=false", "--relational.baselines=false",
        "--relational.bootstrap=40",
    ]  # fmt: skip
    main()(["fit", "--config", "lerp.yaml", *common, "--output=run", "--trainer.max_epochs=1"])
    config = json.loads(Path("run/modulator/modulator_config.json").read_text())
    assert config["geometry"]["kind"] == "wordnet"
    assert config["geometry"]["n_anchors"] == 200
    card = Path("run/modulator/README.md").read_text()
    assert "Geometry before training: wordnet; anchors from all; anchors 200;" in card
    assert "; WordNet 3.0;" in card
    report = json.loads(Path("run/report.json").read_text())
    assert report["model"]["describe"]["geometry"] == config["geometry"]
    low, high = report["relational"]["interval"]["all"]
    assert low <= report["relational"]["last"]["pearson_lift"] <= high
    with np.load("run/relational_bootstrap.npz") as replicates:
        assert replicates["original"].shape == replicates["modulated"].shape == (40, 4)
    # Another geometry in the configuration of a resumed run lays nothing out: the checkpoint's stays.
    main()(["fit", "--resume", "run", "--trainer.max_epochs=2", "--model.geometry.kind=random"])
    again = json.loads(Path("run/modulator/modulator_config.json").read_text())
    assert again["geometry"] == config["geometry"]


def test_an_untrained_modulator_is_measured_with_its_geometry(
    tmp_path: Path, backbone: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    wordnet = small_wordnet(tmp_path / "nltk_data")
    common = [
        f"--data.nltk_data={wordnet}", f"--model.backbone={backbone}", "--report.figures=false",
        "--model.modulator.init_args.n_geometric_dims=8", "--relational.baselines=false",
    ]  # fmt: skip
    main()(["validate", "--config", "lerp.yaml", "--config", "controls/shuffled.yaml", *common, "--output=run"])
    assert "initialising the geometry (shuffled)" in capsys.readouterr().out
    report = json.loads(Path("run/report.json").read_text())
    assert report["model"]["describe"]["geometry"]["kind"] == "shuffled"
    assert report["relational"]["interval"].keys() >= {"all", "train", "mixed", "held_out"}
