"""Each contract check fails on a modulator that violates it; a user-supplied modulator passes all."""

from functools import partial
from pathlib import Path

import pytest

import probe
from modulators.contract import suite
from modulators.contract.alone import ALONE
from modulators.contract.attached import trains_exactly_its_parameters
from modulators.contract.cases import ContractError, backbone
from probes.contract import _find
from tests.runs import ROOT

SPIRAL = ROOT / "docs" / "examples" / "spiral.py"
BROKEN = {
    # the formula ignores the alpha that it is given
    "is_identity_at_alpha_zero": ("turned, alpha.to(stream.dtype)", "turned, self.alphas[layer].to(stream.dtype)"),
    # half of the optimizer's groups
    "groups_every_parameter_once": ('*parameter_group("angles", [self.angles], lr, weight_decay),', ""),
    # a buffer that counts calls
    "keeps_no_state": (
        "        stream = at_least_fp32(residual)",
        "        self.calls += 1\n        stream = at_least_fp32(residual)",
    ),
    # one that takes part in nothing
    "trains_exactly_its_parameters": ("* x - sin * y", "* x - sin.detach() * y + 0 * self.unused.detach()"),
    # computed in the stream's precision
    "rounds_a_bf16_stream_once": ("stream = at_least_fp32(residual)", "stream = residual"),
    # a token looks at the one before it
    "looks_at_each_token_alone": ("turned = torch.cat(", "x = x.roll(1, dims=1)\n        turned = torch.cat("),
}
BUFFERS = """\
        self.register_buffer("calls", torch.zeros(()))
        self.unused = nn.Parameter(torch.zeros(()))
"""


def test_the_example_keeps_every_promise(capsys: pytest.CaptureFixture[str]) -> None:
    code = probe.main(["contract", str(SPIRAL), "--init", "turn=0.3", "initial_alpha=0.2"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert said.splitlines()[-1] == "Spiral: 19 of 19 checks hold"
    assert "failed" not in said


def test_a_class_that_cannot_be_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and not the same reason under every check."""
    file = tmp_path / "mine.py"
    file.write_text("""from modulators import LerpModulator, Modulator
class Base(Modulator): ...
class Mine(LerpModulator):
    def __init__(self, stream, turn): super().__init__(stream)
""")
    for name, line in (
        (":Base", "error: Base is abstract, and cannot be built: it does not define _modulate, active_dims, alphas, "),
        ("", "error: --init: Mine needs turn, as turn=VALUE"),  # the one that is not abstract
    ):
        assert probe.main(["contract", f"{file}{name}"]) == 2
        said = capsys.readouterr()
        assert said.err.startswith(line)
        assert (said.out, said.err.count("\n")) == ("", 1)


@pytest.mark.parametrize("check", BROKEN)
def test_a_violation_is_found(
    check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = BROKEN[check]
    text = SPIRAL.read_text()
    assert text.count(old) == 1
    text = text.replace(old, new)
    if check in ("keeps_no_state", "trains_exactly_its_parameters"):
        begin = text.index("        self._register_alpha_logits(")
        text = text[:begin] + BUFFERS.splitlines(keepends=True)[check != "keeps_no_state"] + text[begin:]
        text = text.replace(
            '"angles", [self.angles],', '"angles", [p for n, p in self.named_parameters() if "_" not in n],'
        )
    file = tmp_path / f"broken_{check}.py"
    file.write_text(text)
    if check == "is_identity_at_alpha_zero":  # by the command, on one backbone
        monkeypatch.setattr(suite, "BACKBONES", ("umt5",))
        assert probe.main(["contract", f"{file}:Spiral", "--init", "initial_alpha=0.2"]) == 1
        said = capsys.readouterr().out.splitlines()
        assert said[-3].startswith("is_identity_at_alpha_zero: layer 0 changes the stream by up to ")
        assert said[-2] == "is_the_base_when_off: umt5: scaled by 0, the output is not the base's"
        assert said[-1] == "Spiral: 17 of 19 checks hold"
        return
    kind = _find(str(file))
    (found,) = [one for one in ALONE if one.__name__ == check] or [
        partial(trains_exactly_its_parameters, model=backbone("umt5"))
    ]
    with pytest.raises(ContractError):
        found(lambda stream: kind(stream, initial_alpha=0.2))


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["nowhere.py"], "error: no file nowhere.py\n"),
        (["FieldModulater"], "did you mean FieldModulator?\n"),
        ([f"{SPIRAL}:Spirl"], "has no modulator or objective Spirl; did you mean Spiral?\n"),
        ([str(SPIRAL), "--init", "turns=1"], "error: --init: Spiral has no argument turns; did you mean turn?\n"),
        ([str(SPIRAL), "--init", "turn"], "error: --init: 'turn' is no NAME=VALUE\n"),
    ],
)
def test_what_is_wrong_with_the_command(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["contract", *argv]) == 2
    said = capsys.readouterr()
    assert said.err.endswith(line)
    assert (said.out, said.err.count("\n")) == ("", 1)
