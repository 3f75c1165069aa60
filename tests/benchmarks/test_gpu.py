"""What is for a GPU runs where there is none, and a part that fails leaves the others. No time is asserted."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.cuda import waiting
from benchmarks.gpu.kernels import kind_of
from benchmarks.gpu.parts import PARTS, Part, measured
from benchmarks.gpu.setting import Setting
from benchmarks.harness import Row
from tests.runs import ROOT


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
    assert kind_of(kernel) == kind


def test_a_part_that_fails_or_takes_too_long_costs_a_line() -> None:
    def fails(_: Setting) -> Iterator[Row]:
        yield {"what": "one"}
        raise RuntimeError("no such\nkernel")

    def sleeps(_: Setting) -> list[Row]:
        time.sleep(60)
        return []

    now = Setting(torch.device("cpu"), True, "tiny")
    assert measured(Part(fails, (), 5), now, 100) == [
        {"what": "one"},
        {"what": "tiny, fails: failed (RuntimeError: no such kernel)"},
    ]
    assert "failed (TimeoutError: longer than 1 s)" in measured(Part(sleeps, (), 1), now, 100)[0]["what"]
    assert "left out" in measured(Part(sleeps, (), 1), now, 0)[0]["what"]
    assert measured(Part(waiting, (), 5), now, 100) == [{"what": "tiny, waiting: needs a GPU"}]


@pytest.mark.slow
def test_the_modules_of_a_gpu_machine_are_enough() -> None:
    """Those have no nltk, no jsonargparse and no wandb."""
    code = (
        "import sys\n"
        "for name in ('nltk', 'jsonargparse', 'wandb'):\n"
        "    sys.modules[name] = None\n"
        "import benchmarks.gpu.__main__\n"
        "import modulators.training.seq2seq, modulators.field, modulators.lerp, modulant.metrics\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)


@pytest.mark.slow
def test_what_is_for_a_gpu_runs_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    about = json.loads((tmp_path / "gpu.json").read_text())
    whats = [row["what"] for row in about["rows"]]
    assert not [what for what in whats if "failed" in what or "left out" in what]
    assert sorted(what for what in whats if "needs a GPU" in what) == [
        "tiny, memory: needs a GPU",
        "tiny, waiting: needs a GPU",
    ]
    assert {"steps", "launches", "compiling", "evaluating"} <= {part.name for part in PARTS}
    assert sum("compile: " in what for what in whats) == 2
    assert about["device"].startswith("CPU, torch ")
    assert all(what in (tmp_path / "gpu.md").read_text() for what in whats)
