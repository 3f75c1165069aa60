"""Files from strangers: no code of theirs runs, nothing is written outside, and one line says why they are refused."""

import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import modulant.lexicon.archive
from callbacks.saving.files import CheckpointError, load_verified, newest_checkpoint, save_atomically
from modulant import assets
from modulant.assets import MINI
from modulant.backbones.families import stream_of
from modulant.backbones.t5 import load_backbone, load_config
from modulant.backbones.tokenizers import load_tokenizer
from modulant.lexicon import Lexicon, LexiconError
from modulant.storage import sha256_of
from modulators import FieldModulator, LerpModulator, load_modulated, save_modulator
from modulators.artifact.files import CONFIG, WEIGHTS
from tests.faults.conftest import Tally
from tests.runs import process, small_wordnet
from tests.wordnets import Synset, write_zip

CODE, FILES = "file that holds code", "archive, cache or artefact made to harm"


class Payload:
    """Pickles to a call of os.system; torch's safe unpickler must not know it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))


def refused(error: pytest.ExceptionInfo[Exception], *parts: str) -> None:
    said = str(error.value)
    assert "\n" not in said
    for part in parts:
        assert part in said
    assert not Path("pwned").exists(), "code was run"


@pytest.mark.parametrize(
    "place",
    [
        ("state_dict", "modulator.alpha_logits"),
        ("optimizer_states", 0, "state", 0, "exp_avg"),
        ("hyper_parameters", "modulator"),
        ("callbacks", "RunReport", "seconds"),
        ("loops", "fit_loop", "state_dict"),
    ],
    ids=lambda place: place[0],
)
def test_code_anywhere_in_a_checkpoint(tmp_path: Path, place: tuple[Any, ...], tally: Tally) -> None:
    """A stranger's run folder verifies: its digest is right. It is passed over all the same."""
    tally.tried(CODE, note="refused in one line; nothing of it has run, nothing was asked")
    nested: Any = Payload()
    for key in reversed(place[1:]):
        nested = {key: nested} if not isinstance(key, int) else [nested]
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    save_atomically({"global_step": 9, place[0]: nested}, folder / "step_00000009.ckpt")
    with pytest.raises(CheckpointError) as error:
        load_verified(folder / "step_00000009.ckpt")
    refused(error, "holds more than tensors and plain values, and is not loaded")
    with pytest.raises(FileNotFoundError, match="none of the 1 checkpoints"):
        newest_checkpoint(tmp_path)
    assert not Path("pwned").exists()
    tally.survived(CODE)


def backbone(folder: Path) -> Path:
    return Path(shutil.copytree(MINI, folder))


@pytest.mark.parametrize("layout", ["zip", "bare"])
def test_a_backbone_as_a_pickle(tmp_path: Path, layout: str, tally: Tally) -> None:
    tally.tried(CODE)
    folder = backbone(tmp_path / "t5")
    (folder / "model.safetensors").unlink()
    if layout == "zip":
        torch.save({"shared.weight": Payload()}, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(ValueError, match=r"model\.backbone") as error:
        load_backbone(str(folder))
    refused(error, "a pickle with more than tensors, which is not loaded", "model.safetensors")
    tally.survived(CODE)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", ["t5", "weird"])
def test_a_backbone_that_names_its_own_code(tmp_path: Path, model_type: str, tally: Tally) -> None:
    """`auto_map`: a T5 loads as transformers' own T5, anything else is refused; neither asks at the terminal."""
    tally.tried(CODE)
    folder = backbone(tmp_path / "t5")
    (folder / "evil.py").write_text("open('pwned', 'w')\nclass C: ...\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": model_type,
        "auto_map": {"AutoConfig": "evil.C", "AutoModelForSeq2SeqLM": "evil.C", "AutoTokenizer": ["evil.C", None]},
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer |= {"auto_map": {"AutoTokenizer": ["evil.C", None]}}
    if model_type == "weird":
        tokenizer["tokenizer_class"] = "Evil"
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    loads = (load_config, load_backbone, load_tokenizer, lambda name: load_tokenizer(name, key="data.tokenizer"))
    for load in loads:
        if model_type == "t5":
            assert type(load(str(folder))).__module__.startswith("transformers.")
        else:
            with pytest.raises(ValueError, match="custom code") as error:
                load(str(folder))
            refused(error)
    assert not Path("pwned").exists()
    tally.survived(CODE)


def test_the_bundled_backbone_is_known_by_its_checksums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = backbone(tmp_path / "mini")
    monkeypatch.setattr(assets, "MINI", folder)
    assert assets.resolve_backbone("mini") == str(folder)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assets.verify.cache_clear()
    with pytest.raises(ValueError, match=r"mini/model\.safetensors: the bundled backbone is damaged") as error:
        load_config("mini")
    refused(error, "get it back from the repository")
    (folder / "tokenizer.json").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot be read") as error:
        load_backbone("mini")
    refused(error)


def test_a_wordnet_that_would_write_elsewhere(tmp_path: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is ever unpacked, so such members are dead weight."""
    tally.tried(FILES, note="refused in one line, or of no effect; nothing is written elsewhere")
    monkeypatch.setenv("MODULANT_CACHE", str(tmp_path / "cache"))
    file = write_zip(
        [Synset(("entity",), "what is"), Synset(("dog",), "an animal", hypernyms=(0,))], tmp_path / "w.zip"
    )
    link = zipfile.ZipInfo("wordnet/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(file, "a") as archive:
        for name in ("../../evil", "wordnet/../../evil", f"{tmp_path}/evil"):
            archive.writestr(name, "evil")
        archive.writestr(link, "/etc/passwd")
    before = {path for path in tmp_path.rglob("*")}
    assert len(Lexicon.load(file)) == 2
    written = {path.name for path in tmp_path.rglob("*")} - {path.name for path in before}
    assert len(written) == 2, written  # the cache folder, and a file in it
    assert not list(tmp_path.parent.glob("evil"))
    tally.survived(FILES)


def test_a_wordnet_whose_files_are_links(tmp_path: Path, tally: Tally) -> None:
    tally.tried(FILES)
    whole = write_zip([Synset(("entity",), "what is")], tmp_path / "whole.zip")
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "linked.zip", "w") as archive:
        for name in source.namelist():
            member = zipfile.ZipInfo(name)
            member.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(member, "/etc/passwd")
    with pytest.raises(LexiconError) as error:
        Lexicon.load(tmp_path / "linked.zip")
    refused(error, "linked.zip")
    tally.survived(FILES)


def test_a_wordnet_that_unpacks_to_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    tally.tried(FILES)
    file = tmp_path / "bomb.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("wordnet/data.noun", bytes(33 << 20))
        archive.writestr("wordnet/index.noun", bytes(1 << 20))
    assert file.stat().st_size < 1 << 17
    monkeypatch.setattr(modulant.lexicon.archive, "_LARGEST", 32 << 20)  # a sixteenth, for time's sake
    with pytest.raises(LexiconError, match="unpacks to 35,651,584 bytes") as error:
        Lexicon.load(file)
    refused(error)
    tally.survived(FILES)


SPOILED: dict[str, Any] = {
    "pickled objects": lambda arrays: arrays | {"hypernyms": np.array([Payload(), Payload()], dtype=object)},
    "another archive's": lambda arrays: arrays | {"archive.sha256": np.array("0" * 64)},
    "a row that is not there": lambda arrays: arrays | {"hypernyms": arrays["hypernyms"] + 1000},
    "offsets beyond the end": lambda arrays: arrays | {"names.offsets": arrays["names.offsets"] * 2},
    "floats": lambda arrays: arrays | {"lexname": arrays["lexname"].astype(float)},
    "a column that is missing": lambda arrays: {key: value for key, value in arrays.items() if key != "pos"},
    "half the rows": lambda arrays: arrays | {"lemma_starts": arrays["lemma_starts"][:2]},
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_cache_that_somebody_else_has_written(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> None:
    """Whole as a file, with checksums that are right: it is compiled again all the same."""
    tally.tried(FILES)
    monkeypatch.setenv("MODULANT_CACHE", str(tmp_path / "cache"))
    synsets = [Synset(("entity",), "what is"), Synset(("dog", "hound"), "an animal", hypernyms=(0,))]
    archive = write_zip(synsets, tmp_path / "w.zip")
    names = list(Lexicon.load(archive).names)
    (file,) = (tmp_path / "cache").iterdir()
    with np.load(file) as stored:
        arrays = dict(stored)
    np.savez(file, **SPOILED[how](arrays))
    again = Lexicon.load(archive)
    assert (list(again.names), again.hypernyms.tolist()) == (names, [0])
    assert not Path("pwned").exists()
    assert list(Lexicon.load(archive).names) == names
    tally.survived(FILES)


def spoil(folder: Path, how: str) -> None:
    tensors = load_file(folder / WEIGHTS)
    config = json.loads((folder / CONFIG).read_text())
    arguments = config["init_args"]
    match how:
        case "dtype":
            tensors["alpha_logits"] = tensors["alpha_logits"].half()
        case "nan":
            tensors["alpha_logits"][0, 0] = float("nan")
        case "name":
            tensors["alpha_logit"] = tensors.pop("alpha_logits")
        case "shape":
            tensors["alpha_logits"] = tensors["alpha_logits"][:2].clone()
        case "huge" if "n_geometric_dims" in arguments:
            arguments["n_geometric_dims"] = 10**9
        case "huge":
            arguments["expert_ks"] = [10**6]
        case "large" if "n_geometric_dims" in arguments:
            arguments["n_geometric_dims"] = 15_000  # as large as a tensor of it, which is 1 GB
        case "large":
            arguments["expert_edim"] = 90
        case "a file":
            arguments["geometry"] = "/etc/passwd"
        case "a list":
            config["init_args"] = ["evil"]
    save_file(tensors, folder / WEIGHTS)
    config["sha256"] = sha256_of(folder / WEIGHTS)  # a stranger's digest is right too
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize("how", ["dtype", "nan", "name", "shape", "huge", "large", "a file", "a list"])
@pytest.mark.parametrize("kind", [FieldModulator, LerpModulator])
def test_an_artefact_that_is_not_what_it_says(tmp_path: Path, kind: Any, how: str, tally: Tally) -> None:
    if kind is FieldModulator and how == "a file":
        return
    tally.tried(FILES)
    save_modulator(kind(stream_of(load_config("mini"))), tmp_path / "a", "mini", [0], {})
    spoil(tmp_path / "a", how)
    with pytest.raises(ValueError, match=r"modulator(_config\.json|\.safetensors): ") as error:
        load_modulated(tmp_path / "a")
    refused(error)
    tally.survived(FILES)


# Refuses and writes down whatever leaves this machine; Python imports it before anything else.
WATCH = """
import os, sys

def _watch(event, arguments):
    if event not in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        return
    where = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
    host = where[0] if isinstance(where, tuple) else where
    if host in ("127.0.0.1", "::1", "localhost", None) or str(host).startswith("/"):
        return
    with open(os.environ["WATCH_LOG"], "a") as log:
        log.write(f"{event} {where}\\n")
    raise OSError(101, "Network is unreachable")

sys.addaudithook(_watch)
"""
SECRETS = {
    "MY_API_KEY": "recognisable-6f1d2c-api",
    "HF_TOKEN": "hf_recognisable6f1d2cToken00",
    "WANDB_API_KEY": "6f1d2c" * 6 + "abcd",
}
TYPED = "hf_TypedTypedTyped0123456789"


def test_a_run_asks_nobody_and_keeps_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    """Under the defaults: the bundled backbone and WordNet's own code path, no variable that forbids the network."""
    tally.tried("run that might use the network, or keep a secret", note="no connection tried, no secret in any file")
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    log = tmp_path / "log"
    environment = SECRETS | {"WATCH_LOG": str(log), "PYTHONPATH": str(tmp_path / "watch")}
    wordnet = str(small_wordnet(tmp_path / "nltk_data"))
    quick = ["--relational.bootstrap", "0", "--relational.baselines", "false", "--report.figures", "false"]
    words = ["fit", "--config", "field.yaml", "--data.nltk_data", wordnet, *quick, "--trainer.max_steps", "2"]
    done = process(*words, "--data.prompts", f'["{TYPED}"]', "--output", "run", cwd=tmp_path, **environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert not log.exists(), log.read_text()
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        content = path.read_bytes()
        for secret in (*SECRETS.values(), TYPED):
            assert secret.encode() not in content, path
    assert "***" in (tmp_path / "run" / "config.yaml").read_text()
    # … and the watch would have seen it
    program = "import socket; socket.create_connection(('192.0.2.1', 80))"
    words = [sys.executable, "-c", program]
    seen = subprocess.run(words, env=os.environ | environment, capture_output=True, check=False)
    assert seen.returncode == 1
    assert "192.0.2.1" in log.read_text()
    tally.survived("run that might use the network, or keep a secret")
