"""probe.py compare: reports of `mini` and of random weights, claims with planted figures, folders that are none."""

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import probe
from modulant.reports.wording import number
from probes.compare.claims import CLAIMS
from probes.compare.reading import BATTERIES, Model, Report
from probes.compare.verdicts import HOLDS, LEVEL, NOT_MEASURED, NOTHING, TESTS, Verdict, ends_of_walks
from probes.pages import write_json
from probes.terrain import command as terrain
from probes.topology import command as topology
from tests.probes.terrain.tokenizers import WORDS, word_tokenizer
from tests.tiny_families import build

JUDGES = {claim.name: claim for claim in CLAIMS}


def measured(battery: ModuleType, model: str, folder: Path, *options: str) -> Path:
    """The report of a battery, without its pages and charts."""
    parser = probe.Parser()
    battery.add_arguments(parser)
    args = parser.parse_args([model, *options])
    found = battery.measure(args, folder)[0] if battery is topology else battery.measure(args)
    write_json(folder / "report.json", found)
    return folder


def compared(output: Path, *folders: Path, options: tuple[str, ...] = ()) -> dict[str, Any]:
    assert probe.main(["compare", *map(str, folders), "--output", str(output), *options]) == 0
    found: dict[str, Any] = json.loads((output / "report.json").read_text())
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Terrain and topology of `mini`, and of a T5 with random weights."""
    root = tmp_path_factory.mktemp("batteries")
    build("t5", vocab_size=len(WORDS), num_layers=6).save_pretrained(root / "random")
    word_tokenizer().save_pretrained(root / "random")
    parts = ("--only", "pentachora,words,constants")
    made = {}
    for name, model in (("mini", "mini"), ("random", str(root / "random"))):
        made[f"terrain {name}"] = measured(terrain, model, root / f"terrain_{name}", *parts)
        made[f"topology {name}"] = measured(topology, model, root / f"topology_{name}")
    return made


@pytest.fixture(scope="module")
def both(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    output = tmp_path_factory.mktemp("compared")
    return compared(output, *folders.values()), output


def test_nothing_holds_of_random_weights(both: tuple[dict[str, Any], Path]) -> None:
    rows = [row for row in both[0]["claims"] if row["model"] != "mini"]
    kinds = {row["claim"]: row["verdict"] for row in rows}
    assert list(kinds) == [claim.name for claim in CLAIMS]
    assert HOLDS not in kinds.values()
    judged = {claim.name for claim in CLAIMS if claim.probe in ("terrain", "topology")}
    assert {name for name in judged if kinds[name] != NOTHING} == set()
    said = {row["claim"]: row["said"] for row in rows}
    assert said["layers apart"].startswith("nothing beyond its null: on the side of the stream")
    assert said["pentachoron CV"].startswith("follows from the covariance")
    assert said["digit manifold"].startswith("nothing beyond its null")


def test_claims_of_mini(both: tuple[dict[str, Any], Path], folders: dict[str, Path]) -> None:
    rows = {row["claim"]: row for row in both[0]["claims"] if row["model"] == "mini"}
    of_rows, of_weights = (
        json.loads((folders[f"{name} mini"] / "report.json").read_text())["figures"] for name in ("terrain", "topology")
    )
    assert rows["digit manifold"]["verdict"] == NOTHING  # r −0.19, p 0.27, as was found by other code
    assert number(of_rows["digits/r"], 3) in rows["digit manifold"]["measured"]
    assert rows["pentachoron CV"]["said"].startswith("follows from the spread of lengths")
    assert "100.00% of W_q below 0.1" in rows["sparse queries"]["measured"]
    assert rows["sparse queries"]["said"].startswith("follows from the size of the entries")
    share = of_weights["source/cross_q/decoder/positive_share"]
    assert share == pytest.approx(0.5, abs=0.02)
    assert of_weights["source/cross_q/decoder/positive_share_null"] == pytest.approx(0.5, abs=0.02)
    assert rows["locked cross-attention"]["measured"] == f"{number(share, 4)} positive"
    assert rows["layers apart"]["said"].startswith("follows from the choice of bases")
    assert rows["crystallised decoder"]["measured"] == "0 of 4 heads mixed (encoder: 4)"
    assert rows["crystallised decoder"]["verdict"] == NOTHING
    assert rows["negative eigenvalues"]["said"].startswith("follows from Sylvester's law")
    for probe_name, name in (("attention", "belief collapse"), ("spectra", "spectral concentration")):
        assert rows[name]["said"] == f"not measured: run `probe.py {probe_name} mini`"


def test_figures_stand_by_model_beside_their_nulls(both: tuple[dict[str, Any], Path]) -> None:
    found, output = both
    row = next(row for row in found["batteries"]["topology"] if row["name"] == "self_q/encoder/stable_rank")
    assert row["values"]["mini"] == pytest.approx(14.50, abs=0.005)
    assert row["nulls"]["mini"] == {"mean": pytest.approx(32), "sd": None}
    digits = next(row for row in found["batteries"]["terrain"] if row["name"] == "digits/r")
    assert digits["nulls"]["mini"]["sd"] == pytest.approx(0.167, abs=0.005)
    page, html = (output / "report.md").read_text(), (output / "report.html").read_text()
    assert "14.50 (32.00)" in page
    for battery in ("terrain", "topology"):
        assert (output / "figures" / f"{battery}.png").stat().st_size > 20_000
        assert f"](figures/{battery}.png)" in page
    assert html.count("<figure>") == sum(map(len, found["batteries"].values()))
    assert page.count("not measured: run `probe.py attention") == 2


def test_all_common_figures(folders: dict[str, Path], tmp_path: Path) -> None:
    found = compared(tmp_path, folders["terrain mini"], folders["terrain random"], options=("--all",))
    names = {row["name"] for row in found["batteries"]["terrain"]}
    figures = [
        json.loads((folders[f"terrain {one}"] / "report.json").read_text())["figures"] for one in ("mini", "random")
    ]
    assert names == figures[0].keys() & figures[1].keys()
    assert not (tmp_path / "figures").exists()


def test_folders_that_are_no_reports(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.json").write_text('{"run": {}}')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "report.json").write_text("{")
    others = [tmp_path / "none", tmp_path / "run", tmp_path / "broken"]
    found = compared(tmp_path / "out", folders["terrain mini"], *others, options=("--all",))
    error = capsys.readouterr().err
    for what in ("none is no output of a battery", "run/report.json is no report of", "report.json cannot be read"):
        assert what in error
    assert len(found["passed_over"]) == 3
    assert probe.main(["compare", *map(str, others), "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: none of 3 folders is an output of a battery")


def test_two_reports_of_one_battery_and_model(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = shutil.copytree(folders["terrain mini"], tmp_path / "again")
    both = [str(folders["terrain mini"]), str(again)]
    assert probe.main(["compare", *both, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.endswith("are both terrain of mini; name one\n")
    assert error.count("\n") == 1
    found = json.loads((again / "report.json").read_text()) | {"probe": "attention", "sha256": "0" * 64}
    (again / "report.json").write_text(json.dumps(found))
    assert probe.main(["compare", *both, "--output", str(tmp_path / "out")]) == 2
    assert "have different weights by the name mini" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_report_is_not_written_over(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(folders["terrain mini"])
    assert probe.main(["compare", folder, "--output", folder]) == 2
    assert "is no output of this command" in capsys.readouterr().err


# Figures by which a claim is judged; each case changes some of them.
DIGITS: dict[str, float | None] = {
    "digits/r": -0.8, "digits/p": 1e-4, "digits/partial_r": -0.7, "digits/partial_p": 1e-4, "letters/r": -0.1,
    "letters/p": 0.4,
}  # fmt: skip
VOLUMES = {"pentachoron/cv": 0.22, "pentachoron/cv_unit": 0.25}
BOUNDARY = {
    "constant/0.29154": 1.2,
    "constant/beside/mean": 1.0,
    "constant/beside/sd": 0.01,
    "constant/beside/places": 6,
}
QUERIES = {
    "self_q/encoder/below_0.1": 1.0, "self_q/encoder/below_0.1_null": 0.9, "self_q/encoder/below_0.1_rms": 0.4,
    "self_k/encoder/below_0.1_rms": 0.08,
}  # fmt: skip
BELIEFS = {
    "source/collapse_layer": 1.0, "collapse_without_sink/layer": 2.0, "collapse_without_sink/drop": -0.3,
    "sink/entropy_r": -0.9, "sink/entropy_p": 1e-3, "confidence/coherence/partial_r": 0.5,
    "confidence/coherence/p_family": 1e-3, "confidence_15/coherence/r": 0.6,
}  # fmt: skip
SMALL = {"collapse_without_sink/drop": -0.05}
CRYSTALS = {
    "source/positions/decoder/local": 4, "source/positions/decoder/global": 4, "source/positions/decoder/mixed": 0,
    "positions/decoder/spearman_left": 0.1, "positions/decoder/spearman_left_null": 0.0,
    "positions/decoder/spearman_left_p": 0.2,
}  # fmt: skip
SPECTRA = {"dimensions/concentration": 0.3, "dimensions/concentration_permuted": 0.07, "dimensions/p": 1e-3}
NULLS = {
    "digits/r": 0.0, "pentachoron/cv": 0.1, "pentachoron/cv_unit": 0.1, "constant/0.29154": 1.0,
}  # fmt: skip


def verdict(name: str, figures: dict[str, Any], reasons: dict[str, str] | None = None) -> Verdict:
    nulls = {key: {"mean": mean, "sd": 0.001} for key, mean in NULLS.items()}
    claim = JUDGES[name]
    report = Report(Path(), claim.probe, "planted", None, figures, nulls, {}, reasons or {})
    return claim.verdict(Model("planted", {claim.probe: report}))


@pytest.mark.parametrize(
    ("name", "figures", "changed", "kind", "said"),
    [
        ("digit manifold", DIGITS, {}, HOLDS, "holds beyond its null"),
        ("digit manifold", DIGITS, {"digits/p": 0.006}, NOTHING, "nothing beyond its null: p 0.006"),
        ("digit manifold", DIGITS, {"digits/r": 0.8}, NOTHING, "nothing beyond its null"),
        ("digit manifold", DIGITS, {"digits/partial_p": 0.2}, NOTHING, "follows from the lengths"),
        ("digit manifold", DIGITS, {"letters/r": -0.9, "letters/p": 1e-4}, NOTHING, "follows from order alone"),
        ("digit manifold", DIGITS, {"letters/r": None, "letters/p": None}, HOLDS, "letters could not be measured"),
        ("pentachoron CV", VOLUMES, {}, HOLDS, "holds beyond its null: 0.220"),
        ("pentachoron CV", VOLUMES, {"pentachoron/cv": 0.11}, NOTHING, "follows from the covariance"),
        ("pentachoron CV", VOLUMES, {"pentachoron/cv": 0.4}, NOTHING, "not so: 0.400 is outside"),
        ("pentachoron CV", VOLUMES, {"pentachoron/cv_unit": 0.1}, NOTHING, "follows from the spread of lengths"),
        ("phase boundary", BOUNDARY, {}, HOLDS, "holds beyond its null"),
        ("phase boundary", BOUNDARY, {"constant/0.29154": 1.01}, NOTHING, "nothing beyond its null"),
        ("phase boundary", BOUNDARY, {"constant/0.29154": 0.8}, NOTHING, "nothing beyond its null"),
        ("sparse queries", QUERIES, {}, HOLDS, "holds beyond its null"),
        ("sparse queries", QUERIES, {"self_q/encoder/below_0.1_rms": 0.1}, NOTHING, "follows from the size"),
        ("sparse queries", QUERIES, {"self_k/encoder/below_0.1_rms": 0.4}, NOTHING, "follows from the size"),
        ("spectral concentration", SPECTRA, {}, HOLDS, "holds beyond its null"),
        ("spectral concentration", SPECTRA, {"dimensions/p": 0.3}, NOTHING, "nothing beyond its null"),
        ("belief collapse", BELIEFS, {}, HOLDS, "the collapse holds beyond its null; coherence as confidence holds"),
        ("belief collapse", BELIEFS, SMALL, NOTHING, "follows from the sink: entropy falls where it grows, r −0.90"),
        ("belief collapse", BELIEFS, {"confidence/coherence/p_family": 0.4}, NOTHING, "the collapse holds beyond"),
        ("belief collapse", BELIEFS | SMALL, {"confidence_15/coherence/r": -0.6}, NOTHING, "and its sign changes"),
        ("belief collapse", BELIEFS | SMALL, {"confidence_15/coherence/r": None}, NOTHING, "half was not measured"),
        ("belief collapse", BELIEFS, {"confidence_15/coherence/r": None}, NOT_MEASURED, "half was not measured"),
        ("belief collapse", BELIEFS, {"collapse_without_sink/layer": 5}, NOTHING, "follows from the sink"),
        ("crystallised decoder", CRYSTALS, {}, HOLDS, "holds beyond its null: p 5e-04"),
        ("crystallised decoder", CRYSTALS, {"source/positions/decoder/mixed": 2}, NOTHING, "not so: 2 are mixed"),
        ("crystallised decoder", CRYSTALS, {"positions/decoder/spearman_left_p": 1e-4}, NOTHING, "curves with a slope"),
        ("crystallised decoder", CRYSTALS, {"source/positions/decoder/local": 0}, NOTHING, "beyond its null: p 0.021"),
    ],
)  # fmt: skip
def test_what_is_planted_is_judged(
    name: str, figures: dict[str, Any], changed: dict[str, Any], kind: str, said: str
) -> None:
    found = verdict(name, {**figures, **changed})
    assert (found.kind, said in found.said) == (kind, True), found


def test_a_figure_that_is_missing_is_named() -> None:
    for name, figures in (("digit manifold", DIGITS), ("pentachoron CV", VOLUMES), ("sparse queries", QUERIES)):
        for key in figures:
            found = verdict(name, {other: value for other, value in figures.items() if other != key})
            if not key.startswith("letters/"):
                assert found.kind == NOT_MEASURED
                assert "run `probe.py" in found.said or "has no `" in found.said
    why = verdict("digit manifold", DIGITS | {"digits/r": None}, {"digits": "not a single token each"})
    assert why.said == "not measured: not a single token each"


def test_where_random_walks_are_largest() -> None:
    steps = torch.randn(20_000, 31, generator=torch.Generator().manual_seed(1))
    places = torch.nn.functional.pad(steps, (1, 0)).cumsum(1).argmax(1)
    assert ((places <= 2) | (places >= 29)).double().mean() == pytest.approx(ends_of_walks(32, 3), abs=0.012)
    assert ends_of_walks(6, 3) == pytest.approx(1)


def test_there_are_as_many_tests_as_claims() -> None:
    assert len(CLAIMS) == TESTS
    assert {claim.probe for claim in CLAIMS} < set(BATTERIES)
    assert pytest.approx(0.005) == LEVEL / TESTS
