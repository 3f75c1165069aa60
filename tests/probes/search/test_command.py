"""The sweep file: W&B's own reading of it, ours, and a search by it that is killed and goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from cli.check import check
from cli.command import read_command
from cli.configuration.files import CONFIGS
from probes.search.page import figure, markdown
from probes.search.space import read_sweep
from tests.runs import ROOT, small_wordnet, tiny_backbone

SWEEP = CONFIGS / "sweeps" / "field.yaml"


def agents_words(chosen: dict[str, object]) -> list[str]:
    """What `wandb agent` would start for some values, by W&B's own functions."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    content = yaml.safe_load(SWEEP.read_text())  # as W&B does, whose reader leaves the file open
    made = utils.create_sweep_command_args({"args": {name: {"value": value} for name, value in chosen.items()}})
    made |= {"interpreter": ["python"], "program": [content["program"]], "env": ["/usr/bin/env"]}
    words: list[str] = []
    for word in utils.create_sweep_command(content["command"]):
        words += made[word[2:-1]] if word.startswith("${") else [word]
    return words


def test_an_agents_command_lines_pass_our_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """… at both ends of every range, and with every value of a list."""
    monkeypatch.chdir(tmp_path)
    parameters = yaml.safe_load(SWEEP.read_text())["parameters"]
    ends = {name: node.get("values") or [node["min"], node["max"]] for name, node in parameters.items()}
    for i in range(max(map(len, ends.values()))):
        words = agents_words({name: values[i % len(values)] for name, values in ends.items()})
        assert words[:4] == ["/usr/bin/env", "python", "train.py", "fit"]
        check(read_command(words[3:]))
    with pytest.raises(ValueError, match=r"did you mean model\.modulator\.initial_alpha\?"):
        check(read_command(agents_words({"model.modulator.initial_alfa": 0.1})[3:]))


def test_it_is_what_wandb_documents_of_a_sweep() -> None:
    """Its validator lies on W&B's server; its package checks no more than this."""
    sweeps = pytest.importorskip("wandb.apis.public.sweeps")
    content = yaml.safe_load(SWEEP.read_text())
    assert sweeps._validate_config_and_fill_distribution(content)["parameters"] == content["parameters"]
    assert content["method"] in ("grid", "random", "bayes")
    assert content["metric"]["goal"] in ("minimize", "maximize")
    assert (ROOT / content["program"]).is_file()
    assert content["early_terminate"] == {"type": "hyperband", "min_iter": 3}
    for node in content["parameters"].values():
        assert node.keys() in ({"values"}, {"distribution", "min", "max"})
    assert content["command"][-1] == "${args}"


def test_our_reading_of_it() -> None:
    sweep = read_sweep("field.yaml")
    assert (sweep.metric, sweep.maximize, sweep.min_checks) == ("relational/validation/pearson_lift", True, 3)
    options = ("--trainer.check_val_every_n_epoch=1", "--data.val_fraction=0.05", "--data.test_fraction=0.05")
    assert sweep.words == (sys.executable, str(ROOT / "train.py"), "fit", "--config", "field.yaml", *options)
    lr, alpha, experts, layers = sweep.parameters
    assert (lr.low, lr.high, lr.log) == (1e-4, 1e-2, True)
    assert (alpha.low, alpha.high, alpha.log) == (0.005, 0.3, False)
    assert experts.values == ("[1]", "[2]", "[4]", "[1, 2, 4]")
    assert layers.name == "model.layers"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"parametres": {}}, "parametres is no key of a sweep; did you mean parameters?"),
        ({"parameters": {}}, "parameters is missing"),
        ({"metric": {}}, "metric.name is missing"),
        ({"metric": {"name": "a", "goal": "most"}}, "metric.goal is most; it must be minimize or maximize"),
        ({"metric": {"name": "relational/held_out/pearson"}}, "metric.name is relational/held_out/pearson: it would"),
        ({"command": "train"}, "command is missing"),
        ({"parameters": {"a": {"min": "1e-4", "max": 1.0}}}, "parameters.a: min is 1e-4 and max is 1.0; both must be"),
        ({"parameters": {"a": {"min": 2, "max": 1}}}, "parameters.a: min is 2; it must be below max, which is 1"),
        ({"parameters": {"a": {"min": 1, "max": 2, "distribution": "normal"}}}, "parameters.a.distribution is normal"),
        ({"parameters": {"a": {"values": []}}}, "parameters.a.values must be a list that is not empty"),
    ],
)
def test_what_is_wrong_with_a_sweep(change: dict[str, object], line: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(SWEEP.read_text()) | change))
    with pytest.raises(ValueError, match=r"^" + str(path)) as caught:
        read_sweep(str(path))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_page_names_the_best_and_says_what_it_is_not(tmp_path: Path) -> None:
    trials = [
        {"trial": "trial_000", "state": "complete", "value": 0.01, "settings": {"model.lr": 1e-3},
         "figures": {"relational/held_out/pearson_lift": 0.02}, "checks": []},
        {"trial": "trial_001", "state": "pruned", "value": None, "settings": {"model.lr": 1e-2}, "figures": {},
         "checks": [-0.1]},
    ]  # fmt: skip
    found = {"sweep": "s.yaml", "metric": "a/b", "goal": "maximize", "trials": trials, "complete": 1,
             "best": trials[0], "command": ["python", "train.py", "fit", "--model.layers=[0, 1]"],
             "importances": {"model.lr": 1.0}}  # fmt: skip
    page = markdown(found)
    assert "trial_000 ←" in page
    assert "python train.py fit '--model.layers=[0, 1]'" in page
    assert "part of its lead is luck" in page
    assert "(of the test part, where there is one): +0.0200. The choice has not seen these pairs." in page
    assert "relational/pearson includes such pairs" in markdown(found | {"metric": "relational/pearson"})
    assert "held_out" not in page, "no trial is to be chosen by it"
    assert "1 trials are too few to rely on" in page
    figure(found).savefig(tmp_path / "a.png")


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_a_search_is_killed_and_goes_on(tmp_path: Path) -> None:
    wordnet, backbone = str(small_wordnet(tmp_path / "wordnet")), tiny_backbone(tmp_path / "backbone")
    content = yaml.safe_load(SWEEP.read_text())
    content["parameters"]["model.layers"] = {"values": ["all", "[1]"]}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content))
    quick = ["--data.nltk_data", wordnet, "--model.backbone", backbone, "--relational.baselines=false"]
    quick += ["--relational.bootstrap=0", "--report.figures=false", "--trainer.max_epochs=8"]
    words = [sys.executable, str(ROOT / "probe.py"), "search", "sweep.yaml", "--output", "out", *quick]

    def done(*more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*words, *more], cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False)

    def begun(log: Path, process: "subprocess.Popen[str]") -> None:
        began = time.monotonic()
        while not (log.is_file() and "\nepoch 2/8" in log.read_text()):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() - began < 200
            time.sleep(0.05)

    # killed, its trial with it
    first = tmp_path / "out" / "trial_000" / "seed_42.log"
    process = subprocess.Popen([*words, "--trials=3"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    begun(first, process)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    os.kill(int(child), signal.SIGKILL)
    process.communicate()

    # gone on with, and stopped by Ctrl-C in its second trial
    process = subprocess.Popen(
        [*words, "--trials=3"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    begun(tmp_path / "out" / "trial_001" / "seed_42.log", process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "trial_001 seed 42: saved" in out
    assert err.startswith("interrupted; 1 of 3 runs are done; resume with: python probe.py search sweep.yaml")
    assert "resuming from out/trial_000/seed_42/checkpoints/step_" in first.read_text()

    finished = done("--trials=3")
    assert (finished.returncode, finished.stderr) == (0, "")
    found = json.loads((tmp_path / "out" / "search.json").read_text())
    assert [trial["state"] for trial in found["trials"]] == ["complete"] * 3
    for trial in found["trials"]:
        folder = tmp_path / "out" / trial["trial"] / "seed_42"
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["model"]["init_args"]["lr"] == pytest.approx(trial["settings"]["model.lr"])
        report = json.loads((folder / "report.json").read_text())
        assert report["run"]["metrics"]["relational/validation/pearson_lift"]["last"] == trial["value"]
    assert found["best"]["value"] == max(trial["value"] for trial in found["trials"])
    assert (tmp_path / "out" / "search.png").stat().st_size > 5000
    again = done("--trials=3")
    assert (again.returncode, again.stdout.splitlines()[0].startswith("best: trial_")) == (0, True)
    other = done("--trials=3", "--model.weight_decay=0.5")
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "were of another search (options differ); name another" in other.stderr
