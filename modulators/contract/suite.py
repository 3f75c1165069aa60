"""Run the contract checks on any modulator or objective, shipped or user-supplied.

Each check is a function that raises `ContractError` with a reason, or returns. Those of `ALONE` take a function that
builds the modulator; those of `ATTACHED` and `MACHINERY` also take a small T5 with random, frozen weights. Those of
`OBJECTIVE` take a function that builds an objective. No test runner is needed: `probe.py contract` runs them for users,
tests/modulators/contract for what is shipped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from modulators.contract.alone import ALONE
from modulators.contract.attached import ATTACHED
from modulators.contract.cases import BACKBONES, Build, ContractError, backbone, moved
from modulators.contract.machinery import MACHINERY, compiles_in_one_graph
from modulators.contract.objectives import OBJECTIVE, BuildObjective


@dataclass(frozen=True)
class Result:
    """Result of one check: its name, what it checks, and the reason of a failure; "" if it passes."""

    name: str
    promise: str
    reason: str


def examine(build: Build, compiled: bool = False) -> list[Result]:
    """Run every check, those with a backbone on each of `BACKBONES`; on a modulator that is `moved` off the identity.

    Args:
        build: builds the modulator for a stream.
        compiled: also check torch.compile, which takes seconds.
    """
    build = moved(build)
    results = [_result(check, partial(check, build)) for check in ALONE]
    for check in (*ATTACHED, *MACHINERY, *((compiles_in_one_graph,) if compiled else ())):
        found = {name: _result(check, partial(check, build, backbone(name))).reason for name in BACKBONES}
        reasons = [f"{name}: {reason}" for name, reason in found.items() if reason]
        more = f" (and on {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        results.append(Result(check.__name__, _promise(check), reasons[0] + more if reasons else ""))
    return results


def examine_objective(build: BuildObjective) -> list[Result]:
    """Run every check of an objective."""
    return [_result(check, partial(check, build)) for check in OBJECTIVE]


def _result(check: Callable[..., None], run: Callable[[], None]) -> Result:
    reason = ""
    try:
        run()
    except ContractError as error:
        reason = str(error)
    except Exception as error:  # a modulator may raise anything; the other checks still run
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return Result(check.__name__, _promise(check), reason)


def _promise(check: Callable[..., None]) -> str:
    return (check.__doc__ or "").strip().splitlines()[0].rstrip(".")
