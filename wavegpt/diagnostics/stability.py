r"""Stability in depth: how much a small change of a state has grown after L layers.

The finite-depth exponent is (1/L) ln(‖J v‖ / ‖v‖), J the Jacobian of the layers at a text's states and v a random
direction: the product J v itself, by forward-mode differentiation, not a perturbation of some size.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from wavegpt.attention.places import places_of
from wavegpt.model import WaveGPT

Layers = Callable[[Tensor], tuple[Tensor, ...]]


def growth(
    layers: Layers, at: Float[Tensor, "texts *state"], directions: int, generator: torch.Generator
) -> Float[Tensor, "layers texts directions"]:
    """ln(‖J_l v‖ / ‖v‖) after each layer, of Gaussian v.

    Args:
        layers: states → the states after each layer; texts must not see each other.
        at: states where it is differentiated.
        directions: v of each text.
        generator: of v; on the CPU.

    >>> once = growth(lambda x: (2 * x, 4 * x), torch.ones(1, 3), 1, torch.Generator().manual_seed(0))
    >>> [round(each, 4) for each in once.flatten().exp().tolist()]
    [2.0, 4.0]
    """
    found = []
    with sdpa_kernel(SDPBackend.MATH):  # fused kernels have no forward mode
        for _ in range(directions):
            v = torch.randn(at.shape, generator=generator, dtype=at.dtype, device="cpu").to(at.device)
            moved = torch.func.jvp(layers, (at,), (v,))[1]
            before = v.flatten(1).norm(dim=1).log()
            found.append(torch.stack([one.flatten(1).norm(dim=1).log() - before for one in moved]))
    return torch.stack(found, dim=-1)


def layers_of(model: WaveGPT, ids: Tensor) -> Layers:
    """The blocks of a model as a function of the embedded tokens."""

    def layers(x: Tensor) -> tuple[Tensor, ...]:
        places, states = places_of(ids, None, None), []
        for block in model.blocks:
            x = block(x, places)
            states.append(x)
        return tuple(states)

    return layers


@torch.no_grad()
def model_growth(
    model: WaveGPT, ids: Tensor, directions: int, generator: torch.Generator
) -> Float[Tensor, "layers texts directions"]:
    """`growth` of a model's blocks at the embedded tokens (B, T)."""
    ratio = model.config.embedding.anneal.ratio(model.config.embedding.anneal.steps)
    start = model.embedding(ids, places_of(ids, None, None).positions, ratio, None)
    return growth(layers_of(model, ids), start, directions, generator)
