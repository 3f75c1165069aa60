"""The arms: a factorial of four factors, and lines on which one thing changes at a time. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import product

from wavegpt.config import AttentionConfig, EmbeddingConfig, LossConfig, OptimizerConfig, ProjectConfig, WaveConfig
from wavegpt.presets import preset

# Factor → its lower and its upper level; an effect is upper minus lower.
FACTORS: Mapping[str, tuple[str, str]] = {
    "embedding": ("table", "wave"),
    "attention": ("rope", "interference"),
    "optimizer": ("adamw", "projected"),
    "loss": ("ce", "coherent"),
}
BASELINE = "table-rope-adamw-ce"
WAVE_EMBEDDING, WAVE_ATTENTION = "wave-rope-adamw-ce", "table-interference-adamw-ce"
WAVE = "wave-interference-adamw-ce"
LINES: Mapping[str, str] = {
    "mass": "what sets a token's frequency, beside its rank",
    "phase": "how attention gets positions and content into its phases",
    "terms": "which terms of the intensity count, and how weights are normalised",
    "loss": "what a term of the coherent loss does by itself, and beside an embedding that is normed from the start",
    "optimizer": "optimizers of the baseline",
    "presets": "the source's own arms",
    "seconds": "arms that have as many seconds as the baseline, instead of as many steps",
}
PHASORLESS = "the table with RoPE has no phasors: its coherent loss is the energy term alone"


@dataclass(frozen=True)
class Sizes:
    """What all arms have in common.

    Attributes:
        waves: W of a token's wave embedding.
        steps: of a run; rates rise over a tenth of them.
    """

    d_model: int
    layers: int
    heads: int
    context: int
    vocab_size: int
    waves: int
    batch_tokens: int
    steps: int


@dataclass(frozen=True)
class Arm:
    """A model with its loss and its optimizer, as it stands in the tables.

    Attributes:
        config: without rates of learning and of the loss, which are tuned.
        tuned_as: the arm whose tuning gives its learning rate; "" for its own.
        line: of `LINES`; "" in the factorial.
        reference: of a line: the arm that it is compared with.
        terms: of its loss, whose weight λ is tuned.
    """

    name: str
    config: WaveConfig
    tuned_as: str = ""
    line: str = ""
    reference: str = ""
    terms: tuple[str, ...] = ()

    @property
    def tuning(self) -> str:
        """The arm whose sweep gives the learning rate."""
        return self.tuned_as or self.name


@dataclass(frozen=True)
class Design:
    """All arms by name, in the order of the tables."""

    arms: Mapping[str, Arm]
    factorial: bool = True
    lines: tuple[str, ...] = field(default=())

    def of_line(self, line: str) -> list[Arm]:
        """The arms of a line, without its references."""
        return [arm for arm in self.arms.values() if arm.line == line]


def design(sizes: Sizes, factorial: bool, lines: tuple[str, ...], only: tuple[str, ...] = ()) -> Design:
    """The arms of a factorial and of lines, and whatever those are compared with.

    Args:
        only: arms of the lines to leave the others out; empty: all.

    Raises:
        ValueError: there is no such arm.
    """
    cells = _factorial(sizes)
    chosen = [arm for line in lines for arm in _LINES[line](sizes, cells)]
    names = [arm.name for arm in chosen]
    if unknown := [name for name in only if name not in names]:
        near = get_close_matches(unknown[0], names, 1, 0)
        said = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"--arms: {unknown[0]!r} is on none of the lines {', '.join(lines) or '(none)'}{said}")
    wanted = {*only, *(name for arm in chosen if arm.name in only for name in (arm.tuned_as, arm.reference))}
    chosen = [arm for arm in chosen if not only or arm.name in wanted]
    lines = tuple(line for line in lines if any(arm.line == line for arm in chosen))
    needed = {arm.reference for arm in chosen} | {arm.tuned_as for arm in chosen} | {BASELINE}
    arms = {name: arm for name, arm in cells.items() if factorial or name in needed}
    return Design(arms | {arm.name: arm for arm in chosen}, factorial, lines)


def _base(sizes: Sizes, embedding: EmbeddingConfig, attention: AttentionConfig) -> WaveConfig:
    return WaveConfig(
        vocab_size=sizes.vocab_size, d_model=sizes.d_model, layers=sizes.layers, heads=sizes.heads,
        context=sizes.context, embedding=embedding, attention=attention,
    )  # fmt: skip


def _embedding(sizes: Sizes, kind: str) -> EmbeddingConfig:
    return EmbeddingConfig(kind="table") if kind == "table" else EmbeddingConfig(waves=sizes.waves)


def _attention(kind: str) -> AttentionConfig:
    return AttentionConfig(kind="rope") if kind == "rope" else AttentionConfig(phase="integrated")


def _projected(sizes: Sizes) -> OptimizerConfig:
    return OptimizerConfig(project=ProjectConfig(side="weight", rank=0.25, every=max(sizes.steps // 20, 1)))


def _factorial(sizes: Sizes) -> dict[str, Arm]:
    found = {}
    for levels in product(*FACTORS.values()):
        embedding, attention, optimizer, loss = levels
        config = _base(sizes, _embedding(sizes, embedding), _attention(attention))
        if optimizer == "projected":
            config = replace(config, optimizer=_projected(sizes))
        arm = Arm("-".join(levels), config)
        if loss == "coherent":
            phasors = config.attention.has_phasors or config.embedding.kind == "wave"
            terms = ("phase", "energy") if phasors else ("energy",)
            arm = replace(arm, tuned_as="-".join((*levels[:3], "ce")), terms=terms)
        found[arm.name] = arm
    return found


def coherence(arm: Arm, weight: float) -> LossConfig:
    """The terms of an arm's loss, by one weight."""
    return LossConfig(phase=weight * ("phase" in arm.terms), energy=weight * ("energy" in arm.terms))


def _mass(sizes: Sizes, cells: Mapping[str, Arm]) -> list[Arm]:
    reference = cells[WAVE_EMBEDDING]
    about = reference.config.embedding
    embeddings = {mass: replace(about, mass=mass) for mass in ("shuffled", "constant", "reversed", "id", "learned")}
    embeddings["factorised"] = replace(about, kind="factorised")
    source = preset("source/interference").embedding
    steps = round(0.2 * sizes.steps)  # the source's 3,000 of 15,000
    embeddings["source"] = replace(source, waves=sizes.waves, anneal=replace(source.anneal, steps=steps))
    return [
        Arm(f"mass-{name}", replace(reference.config, embedding=embedding), line="mass", reference=reference.name)
        for name, embedding in embeddings.items()
    ]


def _phase(sizes: Sizes, cells: Mapping[str, Arm]) -> list[Arm]:
    attentions = {
        "fixed": AttentionConfig(),
        "fixed_without_locality": AttentionConfig(amp_init=0.05),
        "integrated_without_locality": AttentionConfig(phase="integrated", amp_init=0.05),
        "evolved": AttentionConfig(phase="evolved"),
        "none": AttentionConfig(phase="none"),
        "rope_with_locality": AttentionConfig(kind="rope", locality=True),
        "nope": AttentionConfig(kind="nope"),
    }
    return _attentions("phase", attentions, cells)


def _terms(sizes: Sizes, cells: Mapping[str, Arm]) -> list[Arm]:
    attentions = {
        "cross": AttentionConfig(phase="integrated", terms="cross"),
        "difference": AttentionConfig(phase="integrated", terms="difference"),
        "sum": AttentionConfig(phase="integrated", normalise="sum"),
        "energy": AttentionConfig(phase="integrated", normalise="energy"),
        "cosine": AttentionConfig(kind="cosine", temperature="shared"),
        "elu1_score": AttentionConfig(kind="pure_wave", kernel="elu1", where="score"),
        "elu1_feature": AttentionConfig(kind="pure_wave", kernel="elu1", where="feature"),
    }
    return _attentions("terms", attentions, cells)


def _attentions(line: str, attentions: Mapping[str, AttentionConfig], cells: Mapping[str, Arm]) -> list[Arm]:
    reference = cells[WAVE_ATTENTION]
    return [
        Arm(f"{line}-{name}", replace(reference.config, attention=attention), line=line, reference=reference.name)
        for name, attention in attentions.items()
    ]


def _losses(sizes: Sizes, cells: Mapping[str, Arm]) -> list[Arm]:
    """Its terms alone; and a table that is normed, whose states have the blocks' scale from the start."""
    reference = cells[WAVE_ATTENTION]
    normed = replace(reference.config, embedding=EmbeddingConfig(kind="table", normed=True))
    with_rope = replace(normed, attention=_attention("rope"))
    found = [Arm(f"loss-{term}", reference.config, reference.name, terms=(term,)) for term in ("phase", "energy")]
    found += [
        Arm("loss-normed_table", normed),
        Arm("loss-normed_table_energy", normed, "loss-normed_table", reference="loss-normed_table", terms=("energy",)),
        Arm("loss-normed_table_rope", with_rope, reference="loss-normed_table"),
    ]
    return [replace(arm, line="loss", reference=arm.reference or reference.name) for arm in found]


def _optimizers(sizes: Sizes, cells: Mapping[str, Arm]) -> list[Arm]:
    reference = cells[BASELINE]
    every = max(sizes.steps // 20, 1)
    optimizers = {
        "muon": OptimizerConfig(base="muon", fallback_lr=CENTRES["adamw"]),
        "galore": OptimizerConfig(project=ProjectConfig(side="gradient", rank=0.25, every=every, weight=1.0)),
        "sgd": OptimizerConfig(base="sgd"),
        "source": OptimizerConfig(base="sgd", project=ProjectConfig(side="weight", rank=None, every=1, weight=0.7)),
    }
    return [
        Arm(f"optimizer-{n}", replace(reference.config, optimizer=o), line="optimizer", reference=reference.name)
        for n, o in optimizers.items()
    ]


def _presets(sizes: Sizes, cells: Mapping[str, Arm]) -> list[Arm]:
    """As the source computes them, but without dropout and weight decay, as all arms here."""
    made = []
    common = {key: getattr(sizes, key) for key in ("vocab_size", "d_model", "layers", "heads", "context")}
    for name in ("source/interference", "source/cosine", "source/pure_wave", "source/full_physics"):
        config = preset(name, **common, dropout=0.0)
        anneal = replace(config.embedding.anneal, steps=round(0.2 * sizes.steps))
        embedding = replace(config.embedding, waves=sizes.waves, anneal=anneal)
        config = replace(config, embedding=embedding, optimizer=replace(config.optimizer, weight_decay=0.0))
        made.append(Arm(name.replace("/", "_"), config, line="presets", reference=BASELINE))
    return made


def _seconds(sizes: Sizes, cells: Mapping[str, Arm]) -> list[Arm]:
    return [
        replace(cells[name], name=f"seconds-{name}", tuned_as=name, line="seconds", reference=BASELINE)
        for name in (WAVE_EMBEDDING, WAVE_ATTENTION, WAVE)
    ]


_LINES = {
    "mass": _mass, "phase": _phase, "terms": _terms, "loss": _losses, "optimizer": _optimizers, "presets": _presets,
    "seconds": _seconds,
}  # fmt: skip

CENTRES: Mapping[str, float] = {"adamw": 4e-3, "muon": 1.6e-2, "sgd": 0.4}  # of the grids of learning rates
