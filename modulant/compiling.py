"""torch.compile for training passes: the whole model with its hooks as one graph, for all shapes of an epoch.

Only passes with gradients are compiled. Evaluation has hundreds of shapes, and the cache of `generate` grows with each
token: both would be recompiled repeatedly. Metrics are always computed by the eager model.
"""

from collections.abc import Callable
from typing import Any

import torch

from modulant.settings import Compile


def compiled(model: Any, mode: Compile, backend: str = "inductor") -> Callable[..., Any]:
    """Wrap `model` so that passes with gradients are compiled, at the first call; attach modulators before that.

    A graph break is an error. Sizes are dynamic, so one graph serves all batches. On a GPU, ``reduce-overhead`` records
    a CUDA graph for each size, which launches all kernels at once: each takes memory, and it pays if sizes are few and
    kernels small. On a CPU it equals ``True``.

    Args:
        mode: ``True`` or ``reduce-overhead``.
        backend: of torch.compile; ``eager`` traces without generating code.
    """
    cuda_graphs = mode == "reduce-overhead"

    def run(**inputs: Any) -> Any:
        return model(**inputs)

    torch_mode = "reduce-overhead" if cuda_graphs and backend == "inductor" else None
    fast = torch.compile(run, fullgraph=True, dynamic=True, mode=torch_mode, backend=backend)

    def call(**inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return model(**inputs)
        if cuda_graphs:  # the outputs of the last step's graphs may be overwritten
            torch.compiler.cudagraph_mark_step_begin()
        return fast(**inputs)

    return call
