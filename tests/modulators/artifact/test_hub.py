"""From a folder to a hub and back, by huggingface_hub itself, over HTTP, to a hub that runs here.

What is uploaded is exactly the three files; what comes back is the modulator, on the backbone's pinned revision.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modulant.backbones.families import stream_of
from modulant.backbones.t5 import load_config
from modulators import FieldModulator, PretrainedModulator, load_modulated, save_modulator
from tests.modulators.hub import Hub, running

ROOT = Path(__file__).parents[3]
# In a separate process: huggingface_hub reads its address and its mode once, when it is imported.
CLIENT = """
import json, sys
import torch
from modulators import PretrainedModulator, load_modulated
from modulant.backbones.loading import revision_of

done = {}
def failing(what):
    try:
        what()
    except ValueError as error:
        return str(error)

pretrained = PretrainedModulator.from_pretrained(sys.argv[1])
done["no token"] = failing(lambda: pretrained.push_to_hub("me/field", backbone="you/tiny-t5", token=False))
first = pretrained.push_to_hub("me/field", backbone="you/tiny-t5", private=True)
with torch.no_grad():
    pretrained.modulator.alpha_logits.add_(1)
second = pretrained.push_to_hub("me/field", backbone="you/tiny-t5")
done["commits"] = [first, second]
sha = first.rsplit("/", 1)[1]
ids = torch.arange(2, 30)[None]
for name, revision in (("first", sha), ("newest", None)):
    model, tokenizer = load_modulated("me/field", revision=revision)
    done[name] = model.encoder(ids).last_hidden_state.sum().item()
done["words"] = tokenizer("a dog").input_ids
done["backbone"] = revision_of("you/tiny-t5")
done["nothing"] = failing(lambda: load_modulated("me/nothing"))
done["no revision"] = failing(lambda: load_modulated("me/field", revision="f" * 40))
done["no artefact"] = failing(lambda: load_modulated("you/tiny-t5"))
done["again"] = PretrainedModulator.from_pretrained("me/field", local_files_only=True).card
print(json.dumps(done))
"""


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def ask(hub: Hub, program: str, *argv: str, cwd: Path) -> dict[str, str]:
    environment = os.environ | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(cwd / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_TOKEN": "hf_write",
        "PYTHONPATH": str(ROOT),
    }
    words = [sys.executable, "-c", program, *argv]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_to_the_hub_and_back(backbone: str, tmp_path: Path) -> None:
    modulator = FieldModulator(stream_of(load_config(backbone)), initial_alpha=0.2)
    save_modulator(modulator, tmp_path / "modulator", backbone, [0, 1, 2])
    with running() as hub:
        pinned = hub.commit("you/tiny-t5", files(Path(backbone)))
        done = ask(hub, CLIENT, str(tmp_path / "modulator"), cwd=tmp_path)
        assert hub.private["me/field"] is None  # as it was asked for last; the first asked for a private one
        (first_sha, first), (second_sha, second) = hub.repos["me/field"]
        assert len(hub.repos["me/field"]) == 2
    assert first.keys() == {"modulator.safetensors", "modulator_config.json", "README.md"}
    assert first["modulator.safetensors"] == (tmp_path / "modulator" / "modulator.safetensors").read_bytes()
    assert second["modulator.safetensors"] != first["modulator.safetensors"]
    assert done["commits"] == [f"{hub.address}/me/field/commit/{sha}" for sha in (first_sha, second_sha)]
    assert 'load_modulated("me/field")' in first["README.md"].decode()
    assert "base_model: you/tiny-t5" in first["README.md"].decode()
    assert backbone not in first["README.md"].decode() + first["modulator_config.json"].decode()
    model, _ = load_modulated(tmp_path / "modulator")
    expected = model.encoder(torch.arange(2, 30)[None]).last_hidden_state.sum().item()
    assert done["first"] == expected != done["newest"]
    assert done["backbone"] == pinned
    assert done["words"][-1] == 1
    assert 'load_modulated("me/field")' in done["again"]
    assert "push_to_hub: me/field: " in done["no token"]
    for name, what in (("nothing", "neither a folder nor"), ("no revision", "neither a folder nor")):
        assert f"{what} an accessible hub repository" in done[name], done[name]
    assert "not an artefact of a modulator" in done["no artefact"]
    assert not any("\n" in done[name] for name in ("no token", "nothing", "no revision", "no artefact"))


def test_a_local_backbone_is_not_pushed(backbone: str, tmp_path: Path) -> None:
    save_modulator(FieldModulator(stream_of(load_config(backbone))), tmp_path, backbone, [0])
    with pytest.raises(
        ValueError, match=r"^push_to_hub: the backbone is the local folder .* such as backbone='google-t5/t5-small'"
    ):
        PretrainedModulator.from_pretrained(tmp_path).push_to_hub("me/field")
