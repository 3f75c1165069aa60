"""Files that are larger than the memory that a process may have, and a process that is killed. Minutes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from scripts.xxl import configuration, write
from tests.runs import ROOT

MIB = 1 << 20
OF_THE_RUN = ("seconds", "resumed_units", "peak_anonymous_bytes")
LIMITED = """
import resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
import probe
sys.exit(probe.main(sys.argv[2:]))
"""


def process(*words: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def test_names_and_shapes_of_xxl(tmp_path: Path) -> None:
    size = write(tmp_path, configuration(1 / 64, 2), shard_bytes=200_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == size
    files = set(index["weight_map"].values())
    assert len(files) > 2
    for file in files:
        with safe_open(tmp_path / file, framework="pt") as shard:
            assert {index["weight_map"][name] for name in shard.keys()} == {file}  # noqa: SIM118
            for name in shard.keys():  # noqa: SIM118
                tensor = shard.get_tensor(name)
                assert tensor.dtype == torch.bfloat16
                if tensor.ndim == 2 and "bias" not in name:
                    assert tensor.float().norm() == pytest.approx(len(tensor) ** 0.5, rel=0.1)
    assert {"shared.weight", "lm_head.weight"} <= index["weight_map"].keys()
    with pytest.raises(ValueError, match="multiple of 1/64"):
        configuration(0.01)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_is_bounded_below_the_size_of_the_files(tmp_path: Path) -> None:
    size = write(tmp_path / "model", configuration(0.5, 4), shard_bytes=400 * MIB)
    assert size > 1e9
    limit = 1300 * MIB
    words = ["topology", str(tmp_path / "model"), "--fast", "--output", str(tmp_path / "out")]
    child = process("-c", LIMITED, str(limit), *words)
    _, error = child.communicate()
    assert child.returncode == 0, error
    found = report(tmp_path / "out")
    assert found["population"]["matrices"] == 4 * (7 + 11) + 2
    peak = found["peak_anonymous_bytes"]
    print(f"files {size / 1e9:.2f} GB, RssAnon {peak / 1e9:.2f} GB, data limited to {limit / 1e9:.2f} GB")
    assert peak < limit
    words = ["topology", str(tmp_path / "model"), "--fast", "--output", str(tmp_path / "less")]
    child = process("-c", LIMITED, str(limit // 3), *words)  # the limit is one: torch alone needs more
    child.communicate()
    assert child.returncode != 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_killed_measurement_is_resumed(tmp_path: Path) -> None:
    model, out, whole = tmp_path / "model", tmp_path / "out", tmp_path / "whole"
    write(model, configuration(1 / 16, 6))
    killed = process("probe.py", "topology", str(model), "--output", str(out))
    journal = out / "progress.jsonl"
    while killed.poll() is None and (not journal.is_file() or len(journal.read_bytes().splitlines()) < 5):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "report.json").exists()
    for folder, more in ((out, ["--resume"]), (whole, [])):
        done = process("probe.py", "topology", str(model), "--output", str(folder), *more)
        _, error = done.communicate()
        assert done.returncode == 0, error
    first, second = report(out), report(whole)
    assert first["resumed_units"] >= 4
    assert second["resumed_units"] == 0
    same = [{key: value for key, value in found.items() if key not in OF_THE_RUN} for found in (first, second)]
    assert same[0] == same[1]
    for name in ("matrices.jsonl", "heads.jsonl", "report.md"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
