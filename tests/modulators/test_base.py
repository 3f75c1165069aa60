"""The sizes a modulator is built from."""

import subprocess
import sys

import pytest

from modulators import ResidualStream


@pytest.mark.parametrize("name", ["d_model", "n_layers", "vocab_size"])
@pytest.mark.parametrize("value", [0, -3])
def test_a_stream_has_positive_sizes(name: str, value: int) -> None:
    sizes = {"d_model": 8, "n_layers": 2, "vocab_size": 5} | {name: value}
    with pytest.raises(ValueError, match=rf"^{name} is {value}; it must be a positive integer$"):
        ResidualStream(**sizes)


def test_importing_the_package_is_light() -> None:
    code = "import sys, modulators; sys.exit(any(m in sys.modules for m in ('transformers', 'lightning')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
