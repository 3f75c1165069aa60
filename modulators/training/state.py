"""What a checkpoint must hold to be loaded: the tensors of what learns, of the right shapes."""

from collections.abc import Mapping
from typing import Any

from modulant.backbones.stream import ResidualStream


def check_state(
    state: Mapping[str, Any], own: Mapping[str, Any], learns: str, backbone: str, stream: ResidualStream
) -> None:
    """Compare the keys and shapes of a checkpoint's state dict with a module's own.

    Args:
        learns: what is saved, in one word.
        backbone: the module's, for the message.
        stream: its sizes.

    Raises:
        ValueError: keys are missing or left over, or a tensor has another shape.
    """
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    misshapen = [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
    shapes = f"of another shape {_some(sorted(misshapen))}"
    if missing or extra:
        raise ValueError(
            f"this checkpoint is of another {learns}: missing {_some(missing)}, not wanted {_some(extra)}"
            + (f", {shapes}" if misshapen else "")
        )
    if misshapen:
        first = min(misshapen)
        there, here = (" × ".join(map(str, some[first].shape)) for some in (state, own))
        raise ValueError(
            f"this checkpoint is of another {learns} or backbone: {shapes} (the first is {there} in it and "
            f"{here} here); model.backbone is {backbone}, of width {stream.d_model} and "
            f"{stream.n_layers} layers"
        )


def _some(keys: list[str]) -> str:
    """A few keys for a message."""
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{keys[:3]}{more}" if keys else "none"
