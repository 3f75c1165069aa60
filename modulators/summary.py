"""Summary of an attached modulator: a table to print, or plain values."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from modulators.base import Modulator


@dataclass(frozen=True)
class Summary:
    """State of one attached modulator.

    Attributes:
        modulator: name of its class.
        state: ``active``, ``disabled`` (inside ``handle.disabled()``) or ``removed``.
        fused: whether its fused form is in use.
        alpha_scale: the current factor on every α.
        layers: the modulated blocks.
        experts: names of the columns of `alphas`.
        alphas: by layer and expert, before `alpha_scale`.
        trainable_parameters: number of parameters that require a gradient.
        parameters: number of all parameters.
        bytes: size of its parameters and buffers, the fused form's table included.
        device: device of its tensors.
    """

    modulator: str
    state: str
    fused: bool
    alpha_scale: float
    layers: list[int]
    experts: list[str]
    alphas: list[list[float]]
    trainable_parameters: int
    parameters: int
    bytes: int
    device: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-compatible values."""
        return asdict(self)

    def line(self) -> str:
        """Return the summary in one line."""
        values = [alpha for row in self.alphas for alpha in row]
        low, high = min(values), max(values)
        alpha = f"α {low:.4g}" if f"{low:.4g}" == f"{high:.4g}" else f"α {low:.4g} … {high:.4g}"
        scale = "" if self.alpha_scale == 1 else f", scaled by {self.alpha_scale:g}"
        fused = ", fused" if self.fused else ""
        layers = ", ".join(map(str, self.layers))
        return (
            f"{self.modulator} on layers {layers}, {self.parameters:,} parameters, {alpha}{scale}{fused}, {self.state}"
        )

    def __str__(self) -> str:
        """Return a plain-text table."""
        rows = [["layer", *(f"α {name}" for name in self.experts)]]
        rows += [
            [str(layer), *(f"{alpha:.4f}" for alpha in row)]
            for layer, row in zip(self.layers, self.alphas, strict=True)
        ]
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        how = [self.state, *(["fused"] if self.fused else []), f"α used times {self.alpha_scale:g}", self.device]
        counted = (
            f"{self.parameters:,} parameters, {self.trainable_parameters:,} of them trainable, {_size(self.bytes)}"
        )
        return "\n".join([f"{self.modulator}: {', '.join(how)}", counted, *table])


def summarise(modulator: Modulator, used: Modulator, layers: list[int], alpha_scale: float, state: str) -> Summary:
    """Summarise an attached modulator.

    Args:
        modulator: the one that holds the parameters.
        used: the one in use: `modulator`, or its fused form.
        layers: the modulated blocks.
        alpha_scale: the factor on every α.
        state: of the hooks.
    """
    with torch.no_grad():
        alphas = used.alphas[layers].double().cpu().tolist()
    parameters = list(modulator.parameters())
    held = {id(tensor): tensor for part in (modulator, used) for tensor in (*part.parameters(), *part.buffers())}
    return Summary(
        modulator=type(modulator).__name__,
        state=state,
        fused=used is not modulator,
        alpha_scale=alpha_scale,
        layers=list(layers),
        experts=list(used.expert_names),
        alphas=alphas,
        trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        parameters=sum(p.numel() for p in parameters),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in held.values()),
        device=str(used.active_dims.device),
    )


def _size(n_bytes: int) -> str:
    """Size with a decimal unit.

    >>> _size(900), _size(154_000), _size(8_300_000)
    ('900 B', '154 kB', '8.3 MB')
    """
    for size, unit in ((10**6, "MB"), (10**3, "kB")):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes} B"
