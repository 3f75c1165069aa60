"""Ten published claims about geometry, weights, attention and spectra of transformers."""

from collections.abc import Callable
from dataclasses import dataclass

from probes.compare import verdicts
from probes.compare.reading import Absent, Model
from probes.compare.verdicts import NOT_MEASURED, Verdict


@dataclass(frozen=True)
class Claim:
    """A claim and how it is judged.

    Attributes:
        name: in a word or two.
        says: as its source makes it.
        probe: the battery that measures it.
        judge: takes a model of which that battery was run; raises `Absent` where a figure is missing.
    """

    name: str
    says: str
    probe: str
    judge: Callable[[Model], Verdict]

    def verdict(self, model: Model) -> Verdict:
        """The verdict for a model, whatever was measured of it."""
        if self.probe not in model.reports:
            return Verdict(NOT_MEASURED, "–", "–", f"not measured: run `probe.py {self.probe} {model.name}`")
        try:
            return self.judge(model)
        except Absent as reason:
            return Verdict(NOT_MEASURED, "–", "–", f"not measured: {reason}")


CLAIMS = tuple(
    Claim(name, says, probe, judge)
    for probe, name, judge, says in (
        ("terrain", "pentachoron CV", verdicts.volumes, "The CV of pentachora is universal, 0.20 to 0.23"),
        ("topology", "sparse queries", verdicts.sparsity, "Queries are sparse: 93.7, 99.4, 100% of W_q below 0.1"),
        ("topology", "locked cross-attention", verdicts.locked, "Cross-attention is locked at 0.500 positive"),
        ("topology", "layers apart", verdicts.layers_apart, "Attention of different layers is uncorrelated, 0.000"),
        ("topology", "crystallised decoder", verdicts.crystals, "A decoder's heads crystallise: none is mixed"),
        ("terrain", "phase boundary", verdicts.boundary, "Cosines have a phase boundary at 0.29154"),
        ("topology", "negative eigenvalues", verdicts.signs, "Negative eigenvalues bound categories"),
        ("attention", "belief collapse", verdicts.beliefs, "Beliefs collapse at a layer; coherence is confidence"),
        ("spectra", "spectral concentration", verdicts.spectra, "Spectra over a state's dimensions are concentrated"),
        ("terrain", "digit manifold", verdicts.digits, "Digits lie on a manifold, in their order"),
    )
)
