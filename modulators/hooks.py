"""Attach a modulator to a Transformer, by forward pre-hooks on its stack of blocks and on each block.

Hugging Face's forward is not copied and no module is replaced: `generate()`, SDPA, `torch.compile`, gradient
checkpointing and other hooks keep working, and the model's state dict stays that of the base model.

The stack is what reads token ids: a T5's encoder or decoder, a BertModel, a LlamaModel. The hooks keep no state between
calls. The stack's hook adds a keyword argument that the stack passes on to its blocks: whether this pass is modulated,
how strongly, and with which tokens. Each block's hook removes it again. A block that is recomputed in the backward pass
(gradient checkpointing) thus sees its own batch, not the newest.

MPNet's stack passes no keyword argument on; the module inside it that calls the blocks does. There the stack's hook
leaves the pass where a hook of that module finds it, by thread, until the stack returns. sentence-transformers calls
the stack's `forward`, past its hooks; there a hook of the module that does so leaves the pass for the blocks.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from threading import get_ident
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from modulant.backbones.families import Parts, parts_of
from modulant.backbones.sizes import check_layers
from modulant.backbones.split_encoder import TOKEN_IDS
from modulators.base import Modulator, Prepared, relative_push
from modulators.inspection import Inspection
from modulators.summary import Summary, summarise

# Called at each modulated layer with the layer, its stream before and after, and the pass.
_Observer = Callable[[int, Tensor, Tensor, "_Pass"], None]


class _Setting(NamedTuple):
    """What `disabled`, `scaled` and `observed` set."""

    active: bool = True
    alpha_scale: float = 1.0
    observer: _Observer | None = None


class _Pass(NamedTuple):
    """What the blocks need to know about the current pass through their stack."""

    active: bool
    alpha_scale: float
    observer: _Observer | None
    token_ids: Tensor | None
    prepared: Prepared | None = None
    attention_mask: Any = None

    def real(self, n_tokens: int) -> Tensor | None:
        """False at padding, (B, S); None where all tokens count, or where a static KV cache hides which ones do."""
        mask = self.attention_mask
        if isinstance(mask, dict):  # one for each kind of attention
            mask = mask.get("full_attention")
        if mask is None:
            return None
        if mask.ndim == 4:  # (B, 1, S, keys), additive or boolean; the last token attends to all others, causal or not
            if mask.shape[-1] != n_tokens:
                return None
            mask = mask[:, 0, -1] >= 0 if mask.is_floating_point() else mask[:, 0, -1]
        return mask[:, -n_tokens:].bool()  # what a KV cache holds stands before these


class ModulatorHandle:
    """Owns the hooks of one attached modulator. While disabled or removed, the model is the base model, bit for bit.

    Several handles on one model are applied in the order of attachment: at every layer each reads what the previous one
    wrote. So two LERPs of strengths α and β contribute with weights α (1 − β) and β.

    Attributes:
        modulator: the modulator in use; after `fuse`, its fused form.
        layers: the modulated blocks, ascending.
    """

    def __init__(self, parts: Parts, modulator: Modulator, layers: list[int], caller: nn.Module | None = None) -> None:
        stack, sender = parts.stack, parts.sender
        self.modulator = modulator
        self.layers = layers
        # By thread. Compiled code cannot ask for its thread, so it reads the newest of all.
        self._settings: dict[int, _Setting] = {}
        self._newest = _Setting()
        self._unfused: Modulator | None = None
        # One stack may have several handles, perhaps from another process; each needs its own argument name.
        self._argument = next(name for n in count() if (name := f"modulation_{n}") not in stack._modules)
        self._stack = stack
        self._parameters = list(inspect.signature(type(stack).forward).parameters)[1:]
        self._reads_text_alone = parts.family.reads == "input_ids" and not parts.family.needs_encoder
        self._passes: dict[int, _Pass] = {}  # by thread; where it is not the stack that hands them to the blocks
        stack.add_module(self._argument, _Follower(self, stack.training))
        hook: Callable[..., Any] = self._stack_hook if sender is stack else self._begin
        self._hooks: list[RemovableHandle] = [stack.register_forward_pre_hook(hook, with_kwargs=True)]
        if sender is not stack:
            self._hooks += [
                sender.register_forward_pre_hook(self._send, with_kwargs=True),
                stack.register_forward_hook(self._end, always_call=True),
            ]
        if caller is not None:
            self._hooks += [
                caller.register_forward_pre_hook(self._begin_of_features, with_kwargs=True),
                caller.register_forward_hook(self._end, always_call=True),
            ]
        # Blocks outside `layers` need a hook too, to remove the argument before the block sees it.
        self._hooks += [
            block.register_forward_pre_hook(partial(self._block_hook, layer=i), with_kwargs=True)
            for i, block in enumerate(parts.blocks)
        ]

    def remove(self) -> None:
        """Remove the hooks. Calling it again does nothing."""
        while self._hooks:
            self._hooks.pop().remove()
        self._stack._modules.pop(self._argument, None)

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

    @contextmanager
    def observed(self) -> Iterator[dict[str, Tensor]]:
        """Context whose passes are observed: yields a dict that each pass fills with `Modulator.observe`'s figures.

        A later pass replaces the figures of an earlier one. Outputs and gradients stay the same, bit for bit. A pass
        that is compiled is not to be observed: it would be compiled again.
        """
        seen: dict[str, Tensor] = {}

        def observe(layer: int, before: Tensor, after: Tensor, now: _Pass) -> None:
            context = None if now.prepared is None else now.prepared.context
            seen.update(self.modulator.observe(before, after, layer, context, now.real(before.shape[1])))

        with self._set(self._setting()._replace(observer=observe)):
            yield seen

    @torch.no_grad()
    def inspect(self, text_or_ids: str | Sequence[int] | Tensor, tokenizer: Any = None) -> Inspection:
        """How far the modulator moves each token of one text, at each modulated layer and at the stack's end.

        As it stands: under `scaled` with the scaled α, under `disabled` nothing is moved. Dropout is off.

        Args:
            text_or_ids: a text, which the tokenizer encodes as it is, without a prefix; or token ids (S,) or (1, S).
            tokenizer: encodes a text and names tokens; without it a token's name is its id.

        Raises:
            ValueError: a text without a tokenizer, no token, or a stack that does not read a text alone.
        """
        if not self._reads_text_alone:
            raise ValueError(
                "inspect: the stack must read a text alone, as a T5's decoder and a stack of images do not"
            )
        if isinstance(text_or_ids, str):
            if tokenizer is None:
                raise ValueError("inspect: a text needs its tokenizer; give one, or token ids")
            text_or_ids = tokenizer(text_or_ids).input_ids
        ids = torch.as_tensor(text_or_ids, dtype=torch.long).reshape(1, -1)
        if not ids.numel():
            raise ValueError("inspect: there is no token")
        names = map(str, ids[0].tolist()) if tokenizer is None else tokenizer.convert_ids_to_tokens(ids[0].tolist())
        moved = torch.zeros(ids.shape[1], len(self.layers))

        def note(layer: int, before: Tensor, after: Tensor, now: _Pass) -> None:
            moved[:, self.layers.index(layer)] = relative_push(before, after)[0].cpu()

        ids = ids.to(next(self._stack.parameters()).device)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        training = [module for module in self._stack.modules() if module.training]
        self._stack.eval()
        try:
            with self._set(self._setting()._replace(observer=note)):
                modulated = self._stack(**inputs).last_hidden_state[0]
            with self.disabled():
                base = self._stack(**inputs).last_hidden_state[0]
        finally:
            for module in training:
                module.training = True
        drift = 1 - torch.cosine_similarity(base.double(), modulated.double(), dim=-1)
        # A row that pads the vocabulary has no name.
        tokens = [name or f"<{i}>" for name, i in zip(names, ids[0].tolist(), strict=True)]
        return Inspection(tokens, list(self.layers), moved, drift.float().cpu())

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
        return self.__dict__ | {"_settings": {}, "_newest": _Setting(), "_passes": {}}

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

    def _stack_hook(
        self, stack: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, self._argument: self._pass(self._given(args, kwargs))}

    def _begin(self, stack: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._passes[_thread()] = self._pass(self._given(args, kwargs))

    def _begin_of_features(self, caller: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._passes[_thread()] = self._pass({**(args[0] if args else {}), **kwargs})

    def _send(
        self, sender: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        now = self._passes.get(_thread())
        return args, kwargs if now is None else {**kwargs, self._argument: now}

    def _end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._passes.pop(_thread(), None)

    def _given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        return {**dict(zip(self._parameters, args, strict=False)), **kwargs}

    def _pass(self, given: Mapping[str, Any]) -> _Pass:
        token_ids = given.get("input_ids")
        if token_ids is None:  # the upper part of a split encoder, which reads hidden states
            token_ids = given.get(TOKEN_IDS)
        now = _Pass(*self._setting(), token_ids)
        if now.observer is not None:
            now = now._replace(attention_mask=given.get("attention_mask"))
        # A modulator that overrides forward may not take `prepared`.
        if now.active and type(self.modulator).forward is Modulator.forward:
            now = now._replace(prepared=self.modulator.prepare(token_ids, now.alpha_scale))
        return now

    def _block_hook(
        self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], layer: int
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        kwargs = dict(kwargs)
        kwargs.pop(TOKEN_IDS, None)
        now: _Pass | None = kwargs.pop(self._argument, None)
        if now is None:  # the stack's hook did not run: its forward was called, or the block outside the stack
            now = self._passes.get(_thread()) or _Pass(*self._setting(), None)
        if not now.active or layer not in self.layers:
            return args, kwargs
        # A modulator that overrides forward may not take `alpha_scale`; it works as long as the scale is 1.
        options: dict[str, Any] = {} if now.alpha_scale == 1.0 else {"alpha_scale": now.alpha_scale}
        if now.prepared is not None:
            options["prepared"] = now.prepared
        before = args[0] if args else kwargs["hidden_states"]
        after = self.modulator(before, layer, now.token_ids, **options)
        if now.observer is not None:
            with torch.no_grad(), torch.autocast(before.device.type, enabled=False):
                now.observer(layer, before, after, now)
        if args:
            return (after, *args[1:]), kwargs
        kwargs["hidden_states"] = after
        return args, kwargs


def _thread() -> int:
    """This thread; 0 in compiled code, which cannot ask."""
    return 0 if torch.compiler.is_compiling() else get_ident()


class _Follower(nn.Module):
    """A submodule of the stack without parameters: the modulator moves and is cast as the stack is.

    It is in no state dict, and the model's `parameters()` do not name the modulator's.
    """

    def __init__(self, handle: ModulatorHandle, training: bool) -> None:
        super().__init__()
        self.handle, self.training = handle, training  # the stack's own mode, which Lightning compares

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "_Follower":
        for modulator in (self.handle.modulator, self.handle._unfused):
            if modulator is not None:
                modulator._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def attach(
    model: nn.Module, modulator: Modulator, layers: Iterable[Any] | None = None, side: str | None = None
) -> ModulatorHandle:
    """Attach `modulator` to `model`: it rewrites the stream that the blocks read.

    The modulator moves to the model's device, and from then on follows the model to every device and dtype. It does not
    become a submodule: train and save it separately. Attach before compiling.

    Args:
        model: of transformers, of any known family, with a head or without: what ``AutoModel…`` loads; or a
            ``SentenceTransformer`` around such a model.
        modulator: built for this backbone's sizes, as `stream_of` gives them.
        layers: indices of the blocks to modulate, integers of any library; all of them if None.
        side: which stack: ``decoder`` of a T5, whose cross attention stays as it is, ``vision`` of a CLIP; None: the
            encoder of a T5, the text tower of a CLIP, the only stack of others.

    Raises:
        ValueError: a model of no known family or without this side, a modulator built for other sizes, or layers that
            are not distinct indices of the blocks.
    """
    try:
        parts = parts_of(model, side)
    except ValueError as error:
        raise ValueError(f"attach: {error}") from error
    _check_sizes(parts, modulator)
    chosen = check_layers(layers, len(parts.blocks), stack=parts.family.side)
    device = next(parts.stack.parameters()).device
    if device.type != "meta":
        modulator.to(device)
    return ModulatorHandle(parts, modulator, chosen, _caller_of(parts.stack, model))


def _caller_of(stack: nn.Module, model: nn.Module) -> nn.Module | None:
    """The module of sentence-transformers that calls the stack's forward, with a dict of features."""
    return next(
        (
            module
            for module in model.modules()
            if any(child is stack for child in module.children())
            and "features" in inspect.signature(type(module).forward).parameters
        ),
        None,
    )


def _check_sizes(parts: Parts, modulator: Modulator) -> None:
    name, stream, shape = type(modulator).__name__, modulator.stream, parts.shape
    for what, built, has in (
        ("width", stream.d_model, shape.d_model),
        ("layers", stream.n_layers, len(parts.blocks)),
        ("vocabulary", stream.vocab_size, shape.vocab_size),
    ):
        if built != has:
            raise ValueError(f"{name} was built for {what} {built}, got {has}")
