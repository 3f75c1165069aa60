"""The sizes a modulator is built from, and building it without memory."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from modulators import FieldModulator, LerpModulator, Modulator, ResidualStream

STREAM = ResidualStream(d_model=16, n_layers=2, vocab_size=30)


@pytest.mark.parametrize("name", ["d_model", "n_layers", "vocab_size"])
@pytest.mark.parametrize("value", [0, -3])
def test_a_stream_has_positive_sizes(name: str, value: int) -> None:
    sizes = {"d_model": 8, "n_layers": 2, "vocab_size": 5} | {name: value}
    with pytest.raises(ValueError, match=rf"^{name} is {value}; it must be a positive integer$"):
        ResidualStream(**sizes)


def test_importing_the_package_is_light() -> None:
    code = "import sys, modulators; sys.exit(any(m in sys.modules for m in ('transformers', 'lightning')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


BUILT: dict[str, Callable[[], Modulator]] = {
    "field": lambda: FieldModulator(STREAM),
    "scattered": lambda: FieldModulator(STREAM, null_space_position="scattered"),
    "lerp": lambda: LerpModulator(STREAM, n_geometric_dims=4),
}


@pytest.mark.parametrize("kind", BUILT)
@pytest.mark.parametrize("assign", [True, False])
def test_built_on_meta_and_loaded(kind: str, assign: bool) -> None:
    """Deferred initialisation, as of large models: no memory, and then the tensors of a state dict."""
    real = BUILT[kind]()
    with torch.device("meta"):
        modulator = BUILT[kind]()
    assert all(tensor.is_meta for tensor in (*modulator.parameters(), *modulator.buffers()))
    if not assign:
        modulator.to_empty(device="cpu")
    modulator.load_state_dict(real.state_dict(), assign=assign)
    stream, ids = torch.randn(2, 5, 16), torch.randint(0, 30, (2, 5))
    assert torch.equal(modulator(stream, 0, ids), real(stream, 0, ids))
    assert torch.equal(modulator.active_dims, real.active_dims)
