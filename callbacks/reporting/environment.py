"""The environment of a run: versions, platform, command line without secrets, peak memory."""

import os
import platform
import re
import resource
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

PACKAGES = ("modulant", "torch", "lightning", "transformers", "torchmetrics", "nltk", "numpy")
_SECRET_NAME = re.compile(r"(?i)(?:^|[._-])(api[_-]?key|key|token|secret|passw(or)?d|credentials?|auth)$")
_SECRET_VALUE = re.compile(r"\b(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{16,})\b")
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")
HIDDEN = "***"
_BARE_HIDDEN = re.compile(r"^(\s*(?:- )*(?:[\w.]+: )?)" + re.escape(HIDDEN) + r"(?=$)", re.MULTILINE)


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that a result depends on; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def without_secrets(arguments: Sequence[str]) -> list[str]:
    """A command line in which the values of secret-looking options, tokens and passwords in addresses are hidden.

    >>> without_secrets(["fit", "--hub.token", "abc", "--api_key=abc", "--data.tokenizer=t5"])
    ['fit', '--hub.token', '***', '--api_key=***', '--data.tokenizer=t5']
    """
    shown = []
    hide_next = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        secret = name.startswith("-") and _SECRET_NAME.search(name) is not None
        if hide_next and not argument.startswith("--"):
            shown.append(HIDDEN)
        elif secret and equals:
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(_USER_IN_URL.sub(f"{HIDDEN}@", _SECRET_VALUE.sub(HIDDEN, argument)))
        hide_next = secret and not equals
    return shown


def without_secret_values(text: str) -> str:
    """A configuration in YAML in which the values of secret-looking keys, tokens and passwords in addresses are hidden.

    >>> without_secret_values("logger:\\n  api_key: abc\\n  url: https://me:pw@host/x\\n")
    "logger:\\n  api_key: '***'\\n  url: https://***@host/x\\n"
    >>> without_secret_values("tags:\\n- hf_0123456789abcdef0\\n")
    "tags:\\n- '***'\\n"
    """
    lines = []
    for line in text.splitlines(keepends=True):
        key, colon, value = line.partition(":")
        if colon and value.strip() not in ("", "null") and _SECRET_NAME.search(key.strip().lstrip("- ")):
            line = f"{key}: '{HIDDEN}'\n"
        line = _USER_IN_URL.sub(f"{HIDDEN}@", _SECRET_VALUE.sub(HIDDEN, line))
        lines.append(_BARE_HIDDEN.sub(rf"\1'{HIDDEN}'", line))  # a star would begin an alias
    return "".join(lines)


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
