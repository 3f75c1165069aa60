"""A frozen T5 with a modulator attached, as Lightning trains it: only the modulator learns, and only it is saved."""

from collections.abc import Callable

from modulant.backbones.stream import ResidualStream
from modulant.settings import NonNegativeFloat, PositiveFloat, Seed, checked
from modulators.arguments import BackboneDtype, CachePlace, Compile, Layers, Schedule, StoredDtype
from modulators.base import Modulator
from modulators.initialisation import Geometry
from modulators.training.frozen.base import FrozenSettings
from modulators.training.frozen.t5 import FrozenT5
from modulators.training.lower_cache import CacheSettings
from modulators.training.modulated import Modulated
from modulators.training.objectives.base import Objective


class ModulatedT5(Modulated, FrozenT5):
    """Definition → lemma through a frozen T5 whose encoder's residual stream is modulated.

    Trains with AdamW on an objective: by default T5's own loss, the teacher-forced cross-entropy (nats per target
    token). The backbone is in eval mode always, receives no gradient, and is in no checkpoint.

    A modulator's embeddings are initialised (`geometry`) once, before the first step or evaluation; a resumed run has
    them from its checkpoint.

    What `Modulated` and `FrozenT5` say of arguments holds here.

    Args:
        layers: encoder blocks to modulate: ``all``, or a list such as [3, 4, 5].

    Raises:
        ValueError: an argument out of its range, by its key; no such backbone; a layer that it lacks; a geometry for a
            modulator that has none.
    """

    @checked
    def __init__(
        self,
        modulator: Callable[[ResidualStream], Modulator],
        backbone: str = "mini",
        layers: Layers = "all",
        lr: PositiveFloat = 1e-3,
        weight_decay: NonNegativeFloat = 0.01,
        backbone_dtype: BackboneDtype = "float32",
        gradient_checkpointing: bool = False,
        compile: Compile = False,
        seed: Seed = 42,
        schedule: Schedule = "cosine",
        geometry: Geometry | None = None,
        cache: CachePlace | None = None,
        cache_dtype: StoredDtype | None = None,
        cache_limit_gib: PositiveFloat = 4.0,
        cache_folder: str | None = None,
        objective: Objective | None = None,
    ) -> None:
        settings = FrozenSettings(
            backbone, layers, lr, weight_decay, schedule, backbone_dtype, gradient_checkpointing, compile, seed
        )
        super().__init__(settings, CacheSettings(cache, cache_dtype, cache_limit_gib, cache_folder), objective)
        self._build(modulator, geometry)
