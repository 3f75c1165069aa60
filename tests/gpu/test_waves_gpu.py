"""Wave language models on a GPU: each arm computes and learns what it does on a CPU, under bf16 too."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from tests.faults.processes import figures_of
from tests.runs import process
from tests.wavegpt.arms import ARMS, V, model_of, some_ids
from wavegpt import WaveGPT, build_optimizer

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]


def _losses(model: WaveGPT, device: str, steps: int = 4) -> list[float]:
    model, ids = model.to(device), some_ids().to(device)
    optimizer, found = build_optimizer(model), []
    for _ in range(steps):
        loss = F.cross_entropy(model(ids[:, :-1], ratio=0.5).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_learns_what_it_does_on_a_cpu(name: str) -> None:
    cpu, gpu = (_losses(model_of(ARMS[name], torch.float32), device) for device in ("cpu", "cuda"))
    assert gpu == pytest.approx(cpu, abs=2e-3)


@pytest.mark.parametrize("name", ["wave", "baseline", "pure_wave_linear", "source/interference", "integrated-softmax"])
def test_phases_stay_exact_under_bf16(name: str) -> None:
    model, ids = model_of(ARMS[name], torch.float32, spread=0.0).cuda(), some_ids().cuda()
    with torch.autocast("cuda", torch.bfloat16):
        lowered = model(ids).float()
    assert lowered.shape == (*ids.shape, V)
    torch.testing.assert_close(lowered, model(ids), atol=5e-2, rtol=5e-2)


@pytest.mark.parametrize("name", ["wave", "baseline", "pure_wave_linear", "integrated-softmax"])
def test_cached_decoding_is_a_forward_pass(name: str) -> None:
    model, ids = model_of(ARMS[name], torch.float32).cuda(), some_ids().cuda()
    cache = model.new_cache()
    with torch.inference_mode():
        parts = [model(ids[:, :5], cache=cache), *(model(ids[:, t : t + 1], cache=cache) for t in range(5, 12))]
        torch.testing.assert_close(torch.cat(parts, 1), model(ids), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("config", ["wave", "baseline", "rgd_only"])
def test_a_run_learns_what_it_does_on_a_cpu(config: str, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(
        "\n\n".join(f"the number {n} is {n % 7} more than {n - n % 7}, a multiple of seven" for n in range(900))
    )
    found = {}
    for device in ("cpu", "cuda"):
        run = process(
            "fit", "--config", f"wavegpt/{config}.yaml", "--data.corpus", str(text), "--data.tokenizer", "bytes",
            "--trainer.max_steps", "20", "--trainer.log_every_n_steps", "5", "--trainer.val_check_interval", "10",
            "--trainer.accelerator", device, "--output", device, cwd=tmp_path,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert json.loads((tmp_path / device / "report.json").read_text())["run"]["outcome"] == "finished"
        figures = figures_of(tmp_path / device)
        found[device] = [float(value) for key in ("train/loss", "val/bits_per_byte") for _, value in figures[key]]
    assert len(found["cpu"]) > 4
    assert found["cuda"] == pytest.approx(found["cpu"], abs=5e-3)
