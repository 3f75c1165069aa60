"""torch.compile for the passes that train: the whole model with its hooks as one graph, over all shapes of an epoch.

Only passes with gradients are compiled. Evaluation has hundreds of shapes and `generate` a cache that grows at each
token, which would be compiled again and again; figures are the eager model's, whether training was compiled or not.
"""

from collections.abc import Callable
from typing import Any

import torch

from modulators.arguments import Compile


def compiled(model: Any, how: Compile, backend: str = "inductor") -> Callable[..., Any]:
    """`model` for passes with gradients, compiled at the first call; everything must be attached to it by then.

    A graph break is an error: what attaches to a model here has none. Sizes are symbols, so that one graph serves all
    batches; ``reduce-overhead`` records, for each size that it meets on a GPU, a CUDA graph, which launches all kernels
    at once: it takes memory for each, and pays where sizes are few and kernels small. On a CPU it is as ``True``.

    Args:
        how: ``True`` or ``reduce-overhead``.
        backend: of torch.compile; ``eager`` traces and generates no code.
    """
    graphs = how == "reduce-overhead"

    def run(**inputs: Any) -> Any:
        return model(**inputs)

    mode = "reduce-overhead" if graphs and backend == "inductor" else None
    fast = torch.compile(run, fullgraph=True, dynamic=True, mode=mode, backend=backend)

    def call(**inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return model(**inputs)
        if graphs:  # what the last step's graphs gave is no longer needed
            torch.compiler.cudagraph_mark_step_begin()
        return fast(**inputs)

    return call
