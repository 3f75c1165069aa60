"""Learning rates over a run, as a factor of what was asked for; and how a resumed run keeps to what is asked for now.

A checkpoint's optimizer brings back the rates and the weight decay that the run was begun with, silently. A factor that
is a function of the step alone lets a resumed run take new ones, or more steps, from where it is; and with nothing new
it goes on bit for bit.
"""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from modulators.arguments import Schedule

_ASKED = ("lr", "weight_decay")


def cosine(step: int, steps: int) -> float:
    """½ (1 + cos(π step / steps)): from 1 at the first step to 0 at ``steps``, and 0 from there on.

    >>> cosine(0, 10), round(cosine(5, 10), 6), cosine(12, 10)
    (1.0, 0.5, 0.0)
    """
    return 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


def factor_at(schedule: Schedule, step: int, steps: int) -> float:
    """`cosine`, or 1 at every step.

    >>> factor_at("cosine", 10, 10), factor_at("constant", 10, 10)
    (0.0, 1.0)
    """
    return 1.0 if schedule == "constant" else cosine(step, steps)


def asked_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Rates and weight decay of each parameter group, before a checkpoint overwrites them."""
    return [{key: group[key] for key in _ASKED if key in group} for group in optimizer.param_groups]


def restate(optimizer: Optimizer, scheduler: LambdaLR, asked: list[dict[str, Any]]) -> None:
    """Puts back what `asked_of` has noted, the rates scaled to the step where the run is."""
    scheduler.base_lrs = [group["lr"] for group in asked]
    factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
    for group, wanted, factor in zip(optimizer.param_groups, asked, factors, strict=True):
        group.update(wanted, initial_lr=wanted["lr"], lr=wanted["lr"] * factor)
    scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]
