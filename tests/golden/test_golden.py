"""Twenty losses that a refactoring must reproduce."""

import json
from pathlib import Path

import pytest

from tests.golden.record import NAMES, STEPS, trace

# Processors differ in the order in which they sum; on one machine the traces are equal to the last bit.
TOLERANCE = 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_those_recorded(name: str) -> None:
    recorded = json.loads((Path(__file__).parent / f"{name}.json").read_text())
    assert len(recorded) == STEPS
    assert trace(name) == pytest.approx(recorded, rel=TOLERANCE)
