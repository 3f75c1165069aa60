"""The environment of a run: versions, platform, command line without secrets, peak memory."""

import os
import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from modulant.storage.secrets import without_secrets

PACKAGES = ("modulant", "torch", "lightning", "transformers", "torchmetrics", "nltk", "numpy")


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that a result depends on; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def command_line() -> list[str]:
    """This process's command line, the script by its name alone."""
    return without_secrets([os.path.basename(sys.argv[0]), *sys.argv[1:]]) if sys.argv else []


def machine() -> dict[str, Any]:
    """Operating system, processor and accelerators."""
    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cuda": cuda,
    }


def seed() -> int | None:
    """The seed that Lightning's `seed_everything` was called with in this process or its parent."""
    value = os.environ.get("PL_GLOBAL_SEED", "")
    return int(value) if value.isdigit() else None


def peak_memory() -> dict[str, int | None]:
    """Largest resident set of this process and largest memory allocated on its accelerator, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "peak_resident_bytes": peak * (1 if sys.platform == "darwin" else 1024),
        "peak_cuda_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    }
