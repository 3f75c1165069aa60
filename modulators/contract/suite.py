"""What every modulator promises, as checks that run on any: this package's own, and a user's.

Each check is a function that raises `ContractError` with a reason, or returns. Those of `ALONE` take what builds the
modulator; those of `ATTACHED` and `MACHINERY` also take a small T5 with random, frozen weights, to attach it to. A test
runner is not needed: `probe.py contract` runs them for users, tests/contracts for the modulators that are shipped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from modulators.contract.alone import ALONE
from modulators.contract.attached import ATTACHED
from modulators.contract.cases import BACKBONES, Build, ContractError, backbone
from modulators.contract.machinery import MACHINERY, compiles_in_one_graph


@dataclass(frozen=True)
class Result:
    """Of one check: its name, what it promises, and where it fails why; "" where it holds."""

    name: str
    promise: str
    reason: str


def examine(build: Build, compiled: bool = False) -> list[Result]:
    """Run every check, the attached ones on every backbone.

    Args:
        build: makes the modulator for a stream.
        compiled: whether to ask torch.compile too, which takes seconds.
    """
    results = [_result(check, partial(check, build)) for check in ALONE]
    for check in (*ATTACHED, *MACHINERY, *((compiles_in_one_graph,) if compiled else ())):
        found = {name: _result(check, partial(check, build, backbone(name))).reason for name in BACKBONES}
        reasons = [f"{name}: {reason}" for name, reason in found.items() if reason]
        more = f" (and on {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        results.append(Result(check.__name__, _promise(check), reasons[0] + more if reasons else ""))
    return results


def _result(check: Callable[..., None], run: Callable[[], None]) -> Result:
    reason = ""
    try:
        run()
    except ContractError as error:
        reason = str(error)
    except Exception as error:  # a modulator may raise anything, and its user wants to see the other checks too
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return Result(check.__name__, _promise(check), reason)


def _promise(check: Callable[..., None]) -> str:
    return (check.__doc__ or "").strip().splitlines()[0].rstrip(".")
