"""Learning rate schedules, and how the configured rates override those of a checkpoint when a run resumes.

A checkpoint's optimizer silently restores the learning rates and weight decay of the earlier run. Since the schedule is
a factor that depends on the step alone, a resumed run can use new rates, or more steps, from its current step on; with
unchanged settings it continues bit for bit.
"""

import math
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

_KEYS = ("lr", "weight_decay")


def cosine(step: int, steps: int) -> float:
    """½ (1 + cos(π step / steps)): from 1 at the first step to 0 at ``steps``, and 0 from there on.

    >>> cosine(0, 10), round(cosine(5, 10), 6), cosine(12, 10)
    (1.0, 0.5, 0.0)
    """
    return 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


def factor_at(schedule: Literal["cosine", "constant"], step: int, steps: int) -> float:
    """Factor on the learning rate: `cosine`, or 1 at every step.

    >>> factor_at("cosine", 10, 10), factor_at("constant", 10, 10)
    (0.0, 1.0)
    """
    return 1.0 if schedule == "constant" else cosine(step, steps)


def group_settings(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Configured learning rate and weight decay of each parameter group; call before a checkpoint is restored."""
    return [{key: group[key] for key in _KEYS if key in group} for group in optimizer.param_groups]


def override_groups(optimizer: Optimizer, scheduler: LambdaLR, settings: list[dict[str, Any]]) -> None:
    """Override a restored optimizer and scheduler with `group_settings`, the rates scaled to the current step."""
    scheduler.base_lrs = [group["lr"] for group in settings]
    factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
    for group, new, factor in zip(optimizer.param_groups, settings, factors, strict=True):
        group.update(new, initial_lr=new["lr"], lr=new["lr"] * factor)
    scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
