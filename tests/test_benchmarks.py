"""The benchmarks' own arithmetic, and that what is for a GPU runs where there is none. No time is asserted."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_profile
from benchmarks.growth import Curve
from benchmarks.notebook import PlainField
from benchmarks.ways import Through, drawn_lengths, modulated
from modulators import FieldModulator, ResidualStream
from tests.runs import ROOT


def curve(*turns: list[float]) -> Curve:
    return Curve("batch", "seconds", [4, 8, 16], turns, str)


def test_slope_of_a_power_law() -> None:
    slope = curve([3.0, 12.0, 48.0], [5.0, 10.0, 20.0], [5.0, 10.0, 20.0]).slope()
    assert (slope.low, slope.middle, slope.high) == pytest.approx((1, 1, 2))
    one = curve([1.0, 2.0, 8.0]).slope()  # counted: how flat and how steep its steps are
    assert (one.low, one.middle, one.high) == pytest.approx((1, 1.5, 2))


@pytest.mark.parametrize(
    ("values", "said"),
    [([1.0, 2.0, 4.0], "linear"), ([1.0, 1.2, 1.4], "less than linear"), ([1.0, 4.0, 16.0], "more than linear")],
)
def test_what_is_linear(values: list[float], said: str) -> None:
    assert curve(values).verdict() == said


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("sm90_xmma_gemm_f32f32_tf32f32_f32_tn_n_tilesize128x128x32", "matrix products"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm>", "matrix products"),
        ("aten::bmm", "matrix products"),
        ("fmha_cutlassF_f32_aligned_64x64_rf_sm80", "attention"),
        ("void at::native::multi_tensor_apply_kernel<…>", "AdamW"),
        ("void at::native::vectorized_elementwise_kernel<4, …>", "elementwise"),
        ("triton_poi_fused_mul_sigmoid_3", "elementwise"),
        ("void at::native::reduce_kernel<512, 1, …>", "sums and norms"),
        ("Memcpy DtoD (Device -> Device)", "copies"),
    ],
)
def test_kinds_of_kernels(kernel: str, kind: str) -> None:
    assert gpu_profile.kind_of(kernel) == kind


def test_the_notebooks_field_is_the_field() -> None:
    torch.manual_seed(0)
    field = FieldModulator(ResidualStream(16, 2, 50), initial_alpha=0.2)
    plain, residual = PlainField(field), torch.randn(2, 5, 16)
    for layer in range(2):
        torch.testing.assert_close(plain(residual, layer), field(residual, layer), rtol=1e-4, atol=1e-5)


def test_the_floor_asks_for_a_gradient_and_does_nothing() -> None:
    floor, residual = Through(ResidualStream(16, 2, 50)), torch.randn(2, 5, 16)
    out = floor(residual, 0)
    assert torch.equal(out, residual)
    assert out.requires_grad
    assert floor(out, 1) is out


def test_lengths_are_like_the_definitions() -> None:
    lengths = drawn_lengths(10_000)
    assert sum(lengths) / len(lengths) == pytest.approx(15.1, abs=0.3)
    assert max(lengths) <= 93
    assert lengths == drawn_lengths(10_000)


def test_a_part_that_fails_or_takes_too_long_costs_a_line() -> None:
    def fails(_: gpu.Setting) -> Iterator[gpu.Row]:
        yield {"what": "one"}
        raise RuntimeError("no such\nkernel")

    def sleeps(_: gpu.Setting) -> list[gpu.Row]:
        time.sleep(60)
        return []

    now = gpu.Setting(torch.device("cpu"), True, "tiny")
    assert gpu.measured(gpu.Part(fails, (), 5), now, 100) == [
        {"what": "one"},
        {"what": "tiny, fails: failed (RuntimeError: no such kernel)"},
    ]
    assert "failed (TimeoutError: longer than 1 s)" in gpu.measured(gpu.Part(sleeps, (), 1), now, 100)[0]["what"]
    assert "left out" in gpu.measured(gpu.Part(sleeps, (), 1), now, 0)[0]["what"]
    assert gpu.measured(gpu.Part(gpu.waiting, (), 5), now, 100) == [{"what": "tiny, waiting: needs a GPU"}]


@pytest.mark.slow
def test_the_modules_of_a_gpu_machine_are_enough() -> None:
    """Those have no nltk, no jsonargparse and no wandb."""
    code = (
        "import sys\n"
        "for name in ('nltk', 'jsonargparse', 'wandb'):\n"
        "    sys.modules[name] = None\n"
        "import benchmarks.gpu, modulators.training.seq2seq, modulators.field, modulators.lerp, modulant.metrics\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)


@pytest.mark.slow
def test_what_is_for_a_gpu_runs_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    about = json.loads((tmp_path / "gpu.json").read_text())
    whats = [row["what"] for row in about["rows"]]
    assert not [what for what in whats if "failed" in what or "left out" in what]
    assert sorted(what for what in whats if "needs a GPU" in what) == [
        "tiny, memory: needs a GPU",
        "tiny, waiting: needs a GPU",
    ]
    assert {"steps", "launches", "compiling", "evaluating"} <= {part.name for part in gpu.PARTS}
    assert sum("compile: " in what for what in whats) == 2
    assert about["device"].startswith("CPU, torch ")
    assert all(what in (tmp_path / "gpu.md").read_text() for what in whats)


def test_ways_share_the_frozen_weights() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 16, "num_heads": 4, "num_layers": 1}
    model = T5ForConditionalGeneration(T5Config(**sizes)).requires_grad_(False)
    way = modulated(model, FieldModulator)
    pairs = zip(model.parameters(), way.model.parameters(), strict=True)
    assert all(theirs is ours for theirs, ours in pairs)
    assert not model.encoder.block[0]._forward_pre_hooks
    assert way.model.encoder.block[0]._forward_pre_hooks
