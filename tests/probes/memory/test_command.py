"""probe.py memory: counts that are published, what a real process took, and what is said of a wrong command line."""

import json
import os
import subprocess
import sys

import pytest
from transformers import T5Config

import probe
from cli.dry_run.plan import kept_for_backward
from modulant.backbones.t5 import load_config
from modulators import ModulatedT5
from probes.memory.model import DTYPES, MODULATORS, Setting, memory, shapes
from probes.memory.published import PUBLISHED
from tests.runs import ROOT

# of the models on the hub
COUNTS = {
    "google-t5/t5-small": 60_506_624,
    "google-t5/t5-base": 222_903_552,
    "google-t5/t5-large": 737_668_096,
    "google-t5/t5-3b": 2_851_598_336,
    "google-t5/t5-11b": 11_307_321_344,
    "google/t5-v1_1-small": 76_961_152,
    "google/t5-v1_1-base": 247_577_856,
    "google/t5-v1_1-large": 783_150_080,
    "google/t5-v1_1-xl": 2_849_757_184,
    "google/t5-v1_1-xxl": 11_135_332_352,
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_those_that_are_published(name: str) -> None:
    model = shapes(T5Config(**PUBLISHED[name]), DTYPES["bfloat16"])
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]


def test_what_is_sharded_and_what_is_not() -> None:
    config = load_config("mini")
    settings = (Setting("single"), Setting("ddp", 4), Setting("fsdp", 4))
    one, ddp, fsdp = (memory(config, setting)["each"] for setting in settings)
    embeddings = 2 * config.vocab_size * config.d_model
    assert one["frozen weights"] == ddp["frozen weights"] == 2 * 3_754_752
    assert fsdp["frozen weights"] - embeddings == pytest.approx((one["frozen weights"] - embeddings) / 4, rel=1e-2)
    assert (one["gradients on their way"], ddp["gradients on their way"]) == (0, ddp["gradients"])
    assert one["optimizer"] == 2 * one["gradients"]
    assert one["activations"] == fsdp["activations"]


def test_activations_grow_with_what_they_should() -> None:
    config = T5Config(vocab_size=500, d_model=64, d_ff=128, num_heads=4, num_layers=3, decoder_start_token_id=0)

    def kept(**settings: object) -> int:
        return int(memory(config, Setting(**settings))["each"]["activations"])  # type: ignore[arg-type]

    assert kept(batch_size=64) == pytest.approx(2 * kept(batch_size=32), rel=1e-3)
    assert kept(layers=[2]) < kept(layers=[1, 2]) < kept()
    assert kept(gradient_checkpointing=True) < kept()
    assert kept(dtype="float32") > kept(dtype="bfloat16")


@pytest.mark.parametrize(("kind", "checkpointing"), [("field", False), ("field", True), ("lerp", False)])
def test_shapes_alone_give_what_the_module_keeps(kind: str, checkpointing: bool) -> None:
    """The dry run measures a pass of the module itself, by the same arithmetic."""
    module = ModulatedT5(MODULATORS[kind], backbone="mini", gradient_checkpointing=checkpointing)
    expected = kept_for_backward(module, 64, 16).of_batch(2, 32, 16, module.stream.vocab_size)
    setting = Setting("single", 1, "float32", 32, 64, 16, kind, gradient_checkpointing=checkpointing)
    assert memory(load_config("mini"), setting)["each"]["activations"] == pytest.approx(expected, rel=0.08)


@pytest.mark.slow
@pytest.mark.parametrize(("modulator", "checkpointing"), [("field", ""), ("lerp", ""), ("field", "checkpointing")])
def test_it_is_what_a_real_process_took(modulator: str, checkpointing: str) -> None:
    """The largest resident set over two steps of training `mini`, less what the process had before."""
    done = subprocess.run(
        [sys.executable, "-c", REAL, modulator, checkpointing],
        cwd=ROOT,
        # large blocks go back to the system at once, so that what is resident is what is used
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    real = int(done.stdout)
    setting = Setting("single", 1, "float32", 64, 64, 16, modulator, gradient_checkpointing=bool(checkpointing))
    said = memory(load_config("mini"), setting)["total_each"]
    assert 0.9 * real < said < 1.15 * real  # rather too much: LERP at this size is 13% over


REAL = """
import sys
import torch
from modulant.backbones.loading import enable_activation_checkpointing
from modulators import FieldModulator, LerpModulator, attach, load_t5, stream_of

def status(key):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

def train(batch):
    model = load_t5("mini")[0]
    modulator = {"field": FieldModulator, "lerp": LerpModulator}[sys.argv[1]](stream_of(model.config))
    attach(model, modulator)
    if sys.argv[2]:
        enable_activation_checkpointing(model)
        for block in [*model.encoder.block, *model.decoder.block]:
            block.training = True
    optimizer = torch.optim.AdamW(modulator.parameters())
    for _ in range(2):
        ids = torch.randint(3, 300, (batch, 64))
        mask, labels = torch.ones_like(ids), torch.randint(3, 300, (batch, 16))
        model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

train(1)
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
train(64)
print(status("VmHWM") - before)
"""


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--strategy", "fsdp", "--devices", "8", "--gradient-checkpointing"]
    assert probe.main(["memory", "--model", "mini", *options]) == 0
    page = capsys.readouterr().out
    assert page.startswith("field on mini, 3,754,752 frozen parameters; 8 devices, fsdp\n")
    assert "24 GB: fits" in page
    assert probe.main(["memory", "--model", "t5-small", "--modulator", "lerp", "--layers", "3,4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == {"frozen": 60_506_624, "learned": 2_088_966}
    assert found["total"] == found["total_each"] == sum(found["each"].values())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "t5-smal"], "did you mean t5-small?"),
        (["--model", "nonsense"], "known are mini, google-t5/t5-small, "),
        (["--model", "t5-small", "--devices", "2"], "--devices is 2: several need --strategy ddp or fsdp"),
        (["--model", "t5-small", "--layers", "7"], "layer 7 does not exist; the encoder has 6 layers"),
        (["--model", "t5-small", "--batch-size", "0"], "'0' must be an integer of at least 1"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["memory", *options]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert said in line
