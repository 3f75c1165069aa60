"""LERP: each token has a point in a small geometric space, and the stream is pulled towards the point's projection.

`modulators.initialisation` makes the points; here a matrix is given, or the rows start as random directions.
"""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from modulant.backbones.stream import ResidualStream
from modulant.settings import OpenUnitInterval, PositiveInt, Seed, checked
from modulators.arguments import check_geometry_file
from modulators.base import (
    Modulator,
    at_least_fp32,
    logit,
    parameter_group,
    plain_autograd,
)

_PROJECTION_SD = 0.01  # of W before any alignment


class LerpModulator(Modulator):
    r"""h ← (1 − α_l) h + α_l · W g[token],   α_l = sigmoid(θ_l).

    `g` is (V, G), `W` is (D, G) without bias, drawn from N(0, 0.01²). Without a given geometry the rows of `g` are
    N(0, 1) draws scaled to unit norm. It is **not** the identity at a small α: before every block it shrinks the
    stream by (1 − α_l).

    Args:
        stream: the backbone's sizes.
        n_geometric_dims: dimensions G of a token's geometric embedding.
        initial_alpha: injection strength at the start; LERP shrinks the stream by 1 - alpha at each layer.
        learnable_alpha: false keeps alpha at its initial value.
        per_layer_alpha: false: one alpha for all layers.
        geometry: a matrix (V, G), or a .npy or .safetensors file that holds one; null: random rows.
        seed: of the random rows and of the projection. The global generator is left alone.

    Raises:
        ValueError: a size that is not positive, an alpha outside (0, 1), a geometry of the wrong shape, not finite, or
            a file that cannot be read.
    """

    @checked
    def __init__(
        self,
        stream: ResidualStream,
        n_geometric_dims: PositiveInt = 64,
        initial_alpha: OpenUnitInterval = 0.01,
        learnable_alpha: bool = True,
        per_layer_alpha: bool = True,
        geometry: Tensor | str | None = None,
        seed: Seed = 42,
    ) -> None:
        if isinstance(geometry, str):
            check_geometry_file(Path(geometry))
        super().__init__(
            stream,
            {
                "n_geometric_dims": n_geometric_dims,
                "initial_alpha": initial_alpha,
                "learnable_alpha": learnable_alpha,
                "per_layer_alpha": per_layer_alpha,
                "geometry": None,  # the state dict holds it
                "seed": seed,
            },
        )
        self.n_geometric_dims = n_geometric_dims
        generator = torch.Generator().manual_seed(seed)
        shape = (stream.vocab_size, n_geometric_dims)
        # Drawn on the CPU, whatever the default device is: a seed means the same on all.
        random_rows = F.normalize(torch.randn(shape, generator=generator, device="cpu"), dim=-1)
        rows = random_rows if geometry is None else _read_geometry(geometry, shape)
        self.geometric_embed = nn.Embedding(*shape, _weight=rows).to(torch.get_default_device())
        # On meta first: nn.Linear would draw from the global generator for weights that are replaced.
        projection = nn.Linear(n_geometric_dims, stream.d_model, bias=False, device="meta").to_empty(device="cpu")
        nn.init.normal_(projection.weight, std=_PROJECTION_SD, generator=generator)
        self.proj = projection.to(torch.get_default_device())
        logits = torch.full((stream.n_layers if per_layer_alpha else 1, 1), logit(initial_alpha))
        self._register_alpha_logits(logits, learnable_alpha)

    def _context(self, token_ids: Tensor | None) -> Tensor:
        """W g[token], (..., D): the same at every layer, so computed once a pass."""
        token_ids = checked_token_ids(self.stream, token_ids)
        points = F.embedding(token_ids, self.geometric_embed.weight)
        return F.linear(at_least_fp32(points), at_least_fp32(self.proj.weight))

    def _modulate(self, residual: Tensor, alpha: Tensor, layer: int, context: Tensor) -> Tensor:
        return drawn_towards(context, residual, alpha)

    @torch.no_grad()
    def place_geometry(self, rows: Float[Tensor, "vocabulary dims"], projection: Float[Tensor, "width dims"]) -> None:
        """Set `g` and `W` in place, so that an optimizer keeps its parameters.

        Raises:
            ValueError: another shape than theirs.
        """
        for name, own, given in (("rows", self.geometric_embed.weight, rows), ("W", self.proj.weight, projection)):
            if own.shape != given.shape:
                raise ValueError(f"geometry: {name} are {tuple(given.shape)}; this modulator has {tuple(own.shape)}")
            own.copy_(given)

    def freeze_geometry(self) -> None:
        """Stop training `g` and `W`: only the alphas learn."""
        self.geometric_embed.requires_grad_(False)
        self.proj.requires_grad_(False)

    @property
    def alphas(self) -> Float[Tensor, "layers experts"]:
        return at_least_fp32(self.alpha_logits).sigmoid().expand(self.stream.n_layers, 1)

    @property
    def expert_names(self) -> tuple[str, ...]:
        return ("lerp",)

    @property
    def active_dims(self) -> Tensor:
        return torch.arange(self.stream.d_model, device=self.alpha_logits.device)

    @torch.no_grad()
    def health_report(self) -> dict[str, float]:
        r"""Figures of the weights alone: α, and the points.

        A row of `g` is zero where the initialisation matched the token with no lemma (``unmatched: zero``) and training
        has not reached it: ``lerp/points/zero`` is the share of these rows; the other figures are of the rest. ``norm``
        is ‖g‖, ``projected`` ‖W g‖, the norm of what the stream is pulled towards; with their standard deviations.
        """
        points = at_least_fp32(self.geometric_embed.weight)
        norms = points.norm(dim=-1).double()
        some = norms > 0
        projected = F.linear(points, at_least_fp32(self.proj.weight)).norm(dim=-1).double()[some]
        figures = {"points/zero": 1 - some.double().mean()}
        for name, values in (("points/norm", norms[some]), ("points/projected", projected)):
            if len(values):
                figures |= {name: values.mean(), f"{name}_sd": values.std(correction=0)}
        return super().health_report() | {f"lerp/{name}": float(value) for name, value in figures.items()}

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        geometry = [self.geometric_embed.weight, self.proj.weight]
        return [
            *parameter_group("geometry", geometry, lr, weight_decay),
            *parameter_group("alphas", [self.alpha_logits], lr, 0.0),
        ]

    def fuse(self) -> Modulator:
        """For inference: W g of the whole vocabulary computed once. See `modulators.fused`."""
        from modulators.fused import FusedLerp

        return FusedLerp(self)


def checked_token_ids(stream: ResidualStream, token_ids: Tensor | None) -> Tensor:
    """The token ids, if there are some and all of them are in the vocabulary.

    Raises:
        ValueError: there are none, or one is outside the vocabulary.
    """
    if token_ids is None:
        raise ValueError(
            "LerpModulator needs token_ids: give the encoder input_ids, not inputs_embeds, which name no token; call "
            "the model, not its forward; attach to a SentenceTransformer itself, not to its auto_model"
        )
    # Looking at values would make a GPU wait, break a compiled graph, and is impossible under torch.vmap; there the
    # embedding itself complains.
    if token_ids.device.type == "cpu" and not plain_autograd() and token_ids.numel():
        lowest, highest = (int(x) for x in token_ids.aminmax())
        if lowest < 0 or highest >= stream.vocab_size:
            wrong = lowest if lowest < 0 else highest
            raise ValueError(f"token_ids hold {wrong}; the vocabulary has 0 … {stream.vocab_size - 1}")
    return token_ids


def drawn_towards(target: Tensor, residual: Tensor, alpha: Tensor) -> Tensor:
    """(1 − α) h + α · target in fp32 at least, rounded once to the dtype of `residual`.

    Raises:
        ValueError: targets of other tokens.
    """
    if target.shape != residual.shape:
        tokens, asked = tuple(target.shape[:-1]), tuple(residual.shape[:-1])
        raise ValueError(f"token_ids have shape {tokens}, the stream asks for {asked}")
    stream = at_least_fp32(residual)
    target, alpha = target.to(stream.dtype), alpha.to(stream.dtype)
    if plain_autograd():
        return torch.lerp(stream, target, alpha).to(residual.dtype)
    drawn = cast(Tensor, _Drawn.apply(stream, target, alpha))  # type: ignore[no-untyped-call]
    return drawn.to(residual.dtype)


class _Drawn(torch.autograd.Function):
    r"""torch.lerp with one α for all elements, and a cheaper gradient of α.

    ∂L/∂α = Σ g (t − h) is two dot products here; autograd makes three passes over the stream.
    """

    @staticmethod
    def forward(ctx: Any, stream: Tensor, target: Tensor, alpha: Tensor) -> Tensor:
        ctx.save_for_backward(stream, target, alpha)
        return torch.lerp(stream, target, alpha)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        stream, target, alpha = ctx.saved_tensors
        by_stream, by_target, by_alpha = ctx.needs_input_grad
        flat = grad.flatten()
        with torch.autocast(device_type=grad.device.type, enabled=False):  # the backward pass may be called inside it
            towards = torch.dot(flat, target.flatten()) - torch.dot(flat, stream.flatten()) if by_alpha else None
        return (
            (1 - alpha) * grad if by_stream else None,
            alpha * grad if by_target else None,
            towards.expand_as(alpha) if towards is not None else None,
        )


def _read_geometry(geometry: Tensor | str, shape: tuple[int, int]) -> Tensor:
    matrix = geometry if isinstance(geometry, Tensor) else _load_matrix(Path(geometry))
    if tuple(matrix.shape) != shape:
        raise ValueError(f"geometry has shape {tuple(matrix.shape)}; vocabulary and n_geometric_dims ask for {shape}")
    matrix = matrix.detach().to("cpu", torch.get_default_dtype(), copy=True)
    if not matrix.isfinite().all():
        raise ValueError("geometry holds values that are not finite")
    return matrix


def _load_matrix(path: Path) -> Tensor:
    check_geometry_file(path)
    try:
        if path.suffix == ".npy":
            return torch.from_numpy(np.load(path, allow_pickle=False))
        tensors = list(load_file(path).values())
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ValueError(f"geometry {path} cannot be read: {error}") from error
    if len(tensors) != 1:
        raise ValueError(f"geometry {path} holds {len(tensors)} tensors; it must hold one")
    return tensors[0]
