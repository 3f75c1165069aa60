"""What Lightning's Trainer would say of its arguments, or would not: said early, and by the key.

The figures of these checks are Lightning's own; a test compares the names with its registries.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from cli.arguments import did_you_mean
from cli.values import short

# Ranges that Lightning does not check, or not in words that name the key: the smallest value that is right.
AT_LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "fast_dev_run": 0,
    "gradient_clip_val": 0,
    "limit_predict_batches": 0,
    "limit_test_batches": 0,
    "limit_train_batches": 0,
    "limit_val_batches": 0,
    "log_every_n_steps": 0,
    "max_epochs": -1,
    "max_steps": -1,
    "min_epochs": 0,
    "min_steps": 0,
    "num_nodes": 1,
    "num_sanity_val_steps": -1,
    "overfit_batches": 0,
    "reload_dataloaders_every_n_epochs": 0,
    "val_check_interval": 0,
}
_SHARES = (
    "limit_train_batches",
    "limit_val_batches",
    "limit_test_batches",
    "limit_predict_batches",
    "overfit_batches",
    "val_check_interval",
)
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")
_CLIPPING = ("norm", "value")
DEVICES = re.compile(r"auto|-1|[1-9]\d*|\[?\d+(, ?\d+)*,?\]?")
_TIME = re.compile(r"\d+(:\d+){3}")


def check_trainer(given: Mapping[str, Any]) -> None:
    """Check values and combinations, types being right already.

    Args:
        given: name → value, of those arguments that were given.

    Raises:
        ValueError: one is wrong, in one line that names the key.
    """
    for name in _SHARES:
        value = given.get(name)
        if isinstance(value, float) and value > 1 and value % 1:
            raise ValueError(
                f"trainer: {name} is {value}; it must be a share between 0 and 1, or a whole number of batches"
            )
    accelerator = str(given.get("accelerator", "auto")).lower()
    if accelerator not in ACCELERATORS:
        near = did_you_mean(accelerator, ACCELERATORS)
        known = ", ".join(ACCELERATORS)
        raise ValueError(f"trainer: invalid accelerator name {short(accelerator)}; it must be one of {known}{near}")
    clipping = given.get("gradient_clip_algorithm")
    if clipping is not None and str(clipping).lower() not in _CLIPPING:
        raise ValueError(f"trainer.gradient_clip_algorithm is {short(clipping)}; it must be norm or value")
    for name in ("max_time", "val_check_interval"):
        value = given.get(name)
        if isinstance(value, str) and not _TIME.fullmatch(value.strip()):
            right = "a time, DD:HH:MM:SS" if name == "max_time" else "a number or a share of batches, or DD:HH:MM:SS"
            raise ValueError(f"trainer.{name} is {short(value)}; it must be {right}")
    for smallest, largest in (("min_epochs", "max_epochs"), ("min_steps", "max_steps")):
        low, high = given.get(smallest), given.get(largest)
        if low is not None and high is not None and 0 <= high < low:
            raise ValueError(f"trainer.{smallest} is {low}; it must not be above {largest}, which is {high}")
    interval = given.get("val_check_interval")
    if isinstance(interval, float) and given.get("check_val_every_n_epoch", 1) is None:
        raise ValueError(
            f"trainer.val_check_interval is {interval}; where check_val_every_n_epoch is null it must be a whole "
            "number of batches or a time"
        )
    if given.get("barebones"):
        raise ValueError("trainer.barebones is true; a run here is always measured and saved, so it must be false")
    if given.get("enable_checkpointing") is False:
        raise ValueError(
            "trainer.enable_checkpointing is false; runs are always saved, so it must be true or null (see checkpoint)"
        )
    if given.get("use_distributed_sampler") and _several(given):
        raise ValueError("trainer.use_distributed_sampler must be false: the DataModule deals the batches itself")


def check_devices(value: Any) -> bool:
    """Whether Lightning can make anything of a number, a list or a text for ``trainer.devices``."""
    return DEVICES.fullmatch(str(value)) is not None


def planned_steps(given: Mapping[str, Any]) -> float | None:
    """Where it is known before the data: 0 steps, or steps without end; else None."""
    if given.get("fast_dev_run"):
        return None
    epochs, steps = given.get("max_epochs"), given.get("max_steps", -1)
    if steps == 0 or epochs == 0:
        return 0
    endless = epochs == -1 or (epochs is None and given.get("max_time") is not None)
    return math.inf if steps == -1 and endless else None


def _several(given: Mapping[str, Any]) -> bool:
    devices, nodes = str(given.get("devices", 1)), given.get("num_nodes", 1)
    return (devices.isdigit() and int(devices) > 1) or "," in devices.strip("[]").rstrip(",") or nodes > 1
