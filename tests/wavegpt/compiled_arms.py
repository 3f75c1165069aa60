"""Compares compiled arms with eager ones, in a process of its own: shape checks, which tests add, cannot be traced.

python -m tests.wavegpt.compiled_arms BACKEND ARM …
"""

import sys
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from modulant.compiling import compiled
from tests.wavegpt.arms import ARMS, model_of, some_ids
from wavegpt import Observed

SHAPES = [(4, 80), (3, 80), (1, 9)]  # of an epoch: whole windows, the last batch, and the text's end


def learnt(run: Any, model: torch.nn.Module, ids: Tensor, ratio: Tensor | None) -> dict[str, Tensor]:
    """Logits, what is observed, and gradients of something of both."""
    observed = Observed()
    logits = run(ids=ids, ratio=ratio, observed=observed)
    model.zero_grad()
    seen = [*observed.states, *(part for each in (*observed.phasors, *observed.waves) for part in each)]
    (logits.square().mean() + sum(part.square().mean() for part in seen)).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return found | {"logits": logits.detach()} | {f"seen {i}": part.detach() for i, part in enumerate(seen)}


def check(name: str, backend: str) -> None:
    """Nothing compiles again but another length, not another step's ratio; `fullgraph` makes a break an error."""
    torch.compiler.reset()
    counters.clear()
    model = model_of(replace(ARMS[name], dropout=0.0), torch.float32).train()
    run = compiled(model, True, backend=backend)
    anneals = bool(ARMS[name].embedding.anneal.steps)
    for rows, length in SHAPES:
        for ratio in (0.7, 0.2):
            given = (some_ids(rows, length), torch.tensor(ratio) if anneals else None)
            expected, found = learnt(model, model, *given), learnt(run, model, *given)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    graphs = counters["stats"]["unique_graphs"]
    assert 1 <= graphs <= 2, f"{name}: {graphs} graphs"


if __name__ == "__main__":
    for arm in sys.argv[2:]:
        check(arm, sys.argv[1])
    print(len(sys.argv) - 2, "arms")
