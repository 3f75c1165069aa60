"""Attach a modulator to a Transformer, by forward pre-hooks on the encoder and its blocks.

Hugging Face's forward is not copied and no module is replaced: `generate()`, SDPA, `torch.compile`, gradient
checkpointing and other hooks keep working, and the model's state dict stays that of the base model.

The hooks keep no state between calls. The encoder's hook adds a keyword argument that the encoder passes on to its
blocks: whether this pass is modulated, how strongly, and with which tokens. Each block's hook removes it again. A block
that is recomputed in the backward pass (gradient checkpointing) thus sees its own batch, not the newest.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from threading import get_ident
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from modulant.backbones.sizes import check_layers
from modulant.backbones.split_encoder import TOKEN_IDS
from modulators.base import Modulator, Prepared
from modulators.summary import Summary, summarise


class _Setting(NamedTuple):
    """What `disabled` and `scaled` set."""

    active: bool = True
    alpha_scale: float = 1.0


class _Pass(NamedTuple):
    """What the blocks need to know about the current encoder pass."""

    active: bool
    alpha_scale: float
    token_ids: Tensor | None
    prepared: Prepared | None = None


class ModulatorHandle:
    """Owns the hooks of one attached modulator. While disabled or removed, the model is the base model, bit for bit.

    Several handles on one model are applied in the order of attachment: at every layer each reads what the previous one
    wrote. So two LERPs of strengths α and β contribute with weights α (1 − β) and β.

    Attributes:
        modulator: the modulator in use; after `fuse`, its fused form.
        layers: the modulated blocks, ascending.
    """

    def __init__(self, encoder: nn.Module, modulator: Modulator, layers: list[int]) -> None:
        self.modulator = modulator
        self.layers = layers
        # By thread. Compiled code cannot ask for its thread, so it reads the newest of all.
        self._settings: dict[int, _Setting] = {}
        self._newest = _Setting()
        self._unfused: Modulator | None = None
        # One encoder may have several handles, perhaps from another process; each needs its own argument name.
        self._argument = next(name for n in count() if (name := f"modulation_{n}") not in encoder._modules)
        self._encoder = encoder
        encoder.add_module(self._argument, _Follower(self, encoder.training))
        # Blocks outside `layers` need a hook too, to remove the argument before the block sees it.
        blocks = list(cast(nn.ModuleList, encoder.block))
        self._hooks: list[RemovableHandle] = [
            encoder.register_forward_pre_hook(self._encoder_hook, with_kwargs=True),
            *(
                block.register_forward_pre_hook(partial(self._block_hook, layer=i), with_kwargs=True)
                for i, block in enumerate(blocks)
            ),
        ]

    def remove(self) -> None:
        """Remove the hooks. Calling it again does nothing."""
        while self._hooks:
            self._hooks.pop().remove()
        self._encoder._modules.pop(self._argument, None)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Context in which the model is the base model, in this thread. May be nested."""
        with self._set(self._setting()._replace(active=False)):
            yield

    @contextmanager
    def scaled(self, factor: float) -> Iterator[None]:
        """Context in which α is multiplied by `factor`: at 0 the base model, bit for bit. Nested factors multiply.

        Of this thread alone, as `disabled` is; of all threads where the model is compiled. Parameters and state dict do
        not change. Beyond 1 an α may leave the range that it was trained in.

        Raises:
            ValueError: `factor` is not finite.
        """
        if not math.isfinite(factor):
            raise ValueError(f"scaled: factor is {factor}; it must be finite")
        now = self._setting()
        with self._set(now._replace(alpha_scale=now.alpha_scale * float(factor))):
            yield

    def fuse(self) -> None:
        """Use `modulator.fuse()` from now on, for inference: faster, and equal up to rounding.

        The fused form is a snapshot: later changes of the modulator take effect only after `unfuse`.

        Raises:
            ValueError: the modulator cannot be fused.
        """
        if self._unfused is None:
            fused = self.modulator.fuse()
            self._unfused, self.modulator = self.modulator, fused

    def unfuse(self) -> None:
        """Use the unfused modulator again. Does nothing if it is not fused."""
        if self._unfused is not None:
            self.modulator, self._unfused = self._unfused, None

    def summary(self) -> Summary:
        """Summarise what is attached and its current state; print the result, or take its `as_dict()`."""
        now = self._setting()
        state = "removed" if not self._hooks else "active" if now.active else "disabled"
        original = self._unfused or self.modulator
        return summarise(original, self.modulator, self.layers, now.alpha_scale, state)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary().line()}>"

    def __getstate__(self) -> dict[str, Any]:
        # A copy begins outside `disabled` and `scaled`, which would never end for it.
        return self.__dict__ | {"_settings": {}, "_newest": _Setting()}

    def _setting(self) -> _Setting:
        if torch.compiler.is_compiling():
            return self._newest
        return self._settings.get(get_ident(), _Setting()) if self._settings else _Setting()

    @contextmanager
    def _set(self, setting: _Setting) -> Iterator[None]:
        thread = get_ident()
        before = self._settings.pop(thread, None)
        self._settings[thread] = self._newest = setting
        try:
            yield
        finally:
            self._settings.pop(thread)
            if before is not None:
                self._settings[thread] = before
            self._newest = (list(self._settings.values()) or [_Setting()])[-1]

    def _encoder_hook(
        self, encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        token_ids = kwargs.get("input_ids", args[0] if args else None)
        if token_ids is None:  # the upper part of a split encoder, which reads hidden states
            token_ids = kwargs.get(TOKEN_IDS)
        now = _Pass(*self._setting(), token_ids)
        # A modulator that overrides forward may not take `prepared`.
        if now.active and type(self.modulator).forward is Modulator.forward:
            now = now._replace(prepared=self.modulator.prepare(token_ids, now.alpha_scale))
        return args, {**kwargs, self._argument: now}

    def _block_hook(
        self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], layer: int
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        kwargs = dict(kwargs)
        kwargs.pop(TOKEN_IDS, None)
        # A block that is called outside its encoder gets no such argument.
        now: _Pass | None = kwargs.pop(self._argument, None)
        if now is None:
            now = _Pass(*self._setting(), None)
        if not now.active or layer not in self.layers:
            return args, kwargs
        # A modulator that overrides forward may not take `alpha_scale`; it works as long as the scale is 1.
        options: dict[str, Any] = {} if now.alpha_scale == 1.0 else {"alpha_scale": now.alpha_scale}
        if now.prepared is not None:
            options["prepared"] = now.prepared
        if args:
            return (self.modulator(args[0], layer, now.token_ids, **options), *args[1:]), kwargs
        kwargs["hidden_states"] = self.modulator(kwargs["hidden_states"], layer, now.token_ids, **options)
        return args, kwargs


class _Follower(nn.Module):
    """A submodule of the encoder without parameters: the modulator moves and is cast as the encoder is.

    It is in no state dict, and the model's `parameters()` do not name the modulator's.
    """

    def __init__(self, handle: ModulatorHandle, training: bool) -> None:
        super().__init__()
        self.handle, self.training = handle, training  # the encoder's own mode, which Lightning compares

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "_Follower":
        for modulator in (self.handle.modulator, self.handle._unfused):
            if modulator is not None:
                modulator._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def attach(model: nn.Module, modulator: Modulator, layers: Iterable[Any] | None = None) -> ModulatorHandle:
    """Attach `modulator` to `model`: it rewrites the stream that the encoder blocks read.

    The modulator moves to the model's device, and from then on follows the model to every device and dtype. It does not
    become a submodule: train and save it separately. Attach before compiling.

    Args:
        model: a T5, mT5 or UMT5 of transformers, anything with ``.encoder.block`` and ``.config``.
        modulator: built for this backbone's sizes.
        layers: indices of the blocks to modulate, integers of any library; all of them if None.

    Raises:
        ValueError: a model without such an encoder, a modulator built for other sizes, or layers that are not distinct
            indices of the encoder's blocks.
    """
    encoder = getattr(model, "encoder", None)
    blocks = getattr(encoder, "block", None)
    if not isinstance(encoder, nn.Module) or not isinstance(blocks, nn.ModuleList):
        raise ValueError(f"attach needs a T5-like model with encoder.block, got {type(model).__name__}")
    _check_sizes(cast(Any, model).config, len(blocks), modulator)
    chosen = check_layers(layers, len(blocks))
    device = next(encoder.parameters()).device
    if device.type != "meta":
        modulator.to(device)
    return ModulatorHandle(encoder, modulator, chosen)


def _check_sizes(config: Any, n_blocks: int, modulator: Modulator) -> None:
    name, stream = type(modulator).__name__, modulator.stream
    for what, built, has in (
        ("width", stream.d_model, config.d_model),
        ("layers", stream.n_layers, n_blocks),
        ("vocabulary", stream.vocab_size, config.vocab_size),
    ):
        if built != has:
            raise ValueError(f"{name} was built for {what} {built}, got {has}")
