"""Brings a modulator and a Transformer together, by forward pre-hooks on the encoder's own blocks.

Nothing of Hugging Face's forward is copied and no module is replaced, so `generate()`, SDPA, `torch.compile`, gradient
checkpointing and other people's hooks go on working, and the model's state dict stays the base's.

The hooks keep no state between calls. One on the encoder writes, as a keyword argument that the encoder hands on to its
blocks, whether and how strongly this pass is modulated and by which tokens; the hook on each block takes it out again.
A block that is run a second time in the backward pass (gradient checkpointing) thus sees its own batch, not the newest.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, NamedTuple, cast

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from modulant.backbones.sizes import check_layers
from modulant.backbones.split_encoder import TOKEN_IDS
from modulators.base import Modulator, Prepared
from modulators.summary import Summary, summarise

_numbers = count()  # several modulators may sit on one model: each handle's argument has its own name


class _Pass(NamedTuple):
    """What the blocks must know of the encoder pass that they are part of."""

    active: bool
    alpha_scale: float
    token_ids: Tensor | None
    prepared: Prepared | None = None


class ModulatorHandle:
    """Holds the hooks. While they are off or gone the model is the base model, bit for bit.

    Several handles on one model are applied in the order in which they were attached: each reads what the one before
    has written, at every layer. So two LERPs of strengths α and β pull with α (1 − β) and β.

    Attributes:
        modulator: what modulates; after `fuse`, what it was fused to.
        layers: the modulated blocks, ascending.
    """

    def __init__(self, encoder: nn.Module, modulator: Modulator, layers: list[int]) -> None:
        self.modulator = modulator
        self.layers = layers
        self._active = True
        self._alpha_scale = 1.0
        self._unfused: Modulator | None = None
        self._argument = f"modulation_{next(_numbers)}"
        # Blocks outside `layers` need a hook too: it takes the argument away before the block would see it.
        blocks = list(cast(nn.ModuleList, encoder.block))
        self._hooks: list[RemovableHandle] = [
            encoder.register_forward_pre_hook(self._announce, with_kwargs=True),
            *(
                block.register_forward_pre_hook(partial(self._rewrite, layer=i), with_kwargs=True)
                for i, block in enumerate(blocks)
            ),
        ]

    def remove(self) -> None:
        """Takes the hooks away. Calling it again does nothing."""
        while self._hooks:
            self._hooks.pop().remove()

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Inside, the model is the base model. May be nested."""
        before, self._active = self._active, False
        try:
            yield
        finally:
            self._active = before

    @contextmanager
    def scaled(self, factor: float) -> Iterator[None]:
        """Inside, every α is used times `factor`: at 0 the base model, bit for bit. Nested factors multiply.

        What is trained does not change, nor what is saved. Beyond 1 an α may leave the range that it was trained in.

        Raises:
            ValueError: a factor that is not finite.
        """
        if not math.isfinite(factor):
            raise ValueError(f"scaled: factor is {factor}; it must be finite")
        before, self._alpha_scale = self._alpha_scale, self._alpha_scale * float(factor)
        try:
            yield
        finally:
            self._alpha_scale = before

    def fuse(self) -> None:
        """For inference: from now on uses `modulator.fuse()`, which gives the same up to rounding, faster. Of the
        modulator as it is now: what it learns afterwards shows after `unfuse` only.

        Raises:
            ValueError: a modulator that cannot be fused.
        """
        if self._unfused is None:
            fused = self.modulator.fuse()
            self._unfused, self.modulator = self.modulator, fused

    def unfuse(self) -> None:
        """Goes back to the modulator itself. Without a `fuse` before it does nothing."""
        if self._unfused is not None:
            self.modulator, self._unfused = self._unfused, None

    def summary(self) -> Summary:
        """What is attached, and how it stands now; `print` it, or take `as_dict()`."""
        state = "removed" if not self._hooks else "active" if self._active else "disabled"
        original = self._unfused or self.modulator
        return summarise(original, self.modulator, self.layers, self._alpha_scale, state)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary().line()}>"

    def _announce(
        self, encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        token_ids = kwargs.get("input_ids", args[0] if args else None)
        if token_ids is None:  # an upper half, which reads hidden states
            token_ids = kwargs.get(TOKEN_IDS)
        now = _Pass(self._active, self._alpha_scale, token_ids)
        # A modulator with a forward of its own may know of nothing that is prepared.
        if now.active and type(self.modulator).forward is Modulator.forward:
            now = now._replace(prepared=self.modulator.prepare(token_ids, now.alpha_scale))
        return args, {**kwargs, self._argument: now}

    def _rewrite(
        self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], layer: int
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        kwargs = dict(kwargs)
        kwargs.pop(TOKEN_IDS, None)
        # A block called on its own, outside the encoder, was announced by nobody.
        now: _Pass = kwargs.pop(self._argument, _Pass(self._active, self._alpha_scale, None))
        if not now.active or layer not in self.layers:
            return args, kwargs
        # A modulator whose forward knows of no scale works as long as none is asked for.
        options: dict[str, Any] = {} if now.alpha_scale == 1.0 else {"alpha_scale": now.alpha_scale}
        if now.prepared is not None:
            options["prepared"] = now.prepared
        if args:
            return (self.modulator(args[0], layer, now.token_ids, **options), *args[1:]), kwargs
        kwargs["hidden_states"] = self.modulator(kwargs["hidden_states"], layer, now.token_ids, **options)
        return args, kwargs


def attach(model: nn.Module, modulator: Modulator, layers: Sequence[int] | None = None) -> ModulatorHandle:
    """Lets `modulator` rewrite what the encoder blocks of `model` read.

    The modulator does not become part of `model`: move, train and save it on its own. Attach before compiling.

    Args:
        model: a T5 or UMT5 of transformers, anything with ``.encoder.block`` and ``.config``.
        modulator: built for this backbone's sizes.
        layers: the blocks to modulate; all of them if None.

    Raises:
        ValueError: a model without such an encoder, a modulator of other sizes, or layers that are no distinct
            indices of the encoder's blocks.
    """
    encoder = getattr(model, "encoder", None)
    blocks = getattr(encoder, "block", None)
    if not isinstance(encoder, nn.Module) or not isinstance(blocks, nn.ModuleList):
        raise ValueError(f"attach needs a T5-like model with encoder.block, got {type(model).__name__}")
    _check_sizes(cast(Any, model).config, len(blocks), modulator)
    return ModulatorHandle(encoder, modulator, check_layers(layers, len(blocks)))


def _check_sizes(config: Any, n_blocks: int, modulator: Modulator) -> None:
    name, stream = type(modulator).__name__, modulator.stream
    for what, built, has in (
        ("width", stream.d_model, config.d_model),
        ("layers", stream.n_layers, n_blocks),
        ("vocabulary", stream.vocab_size, config.vocab_size),
    ):
        if built != has:
            raise ValueError(f"{name} was built for {what} {built}, got {has}")
