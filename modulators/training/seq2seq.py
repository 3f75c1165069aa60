"""A frozen T5 with a modulator attached, as Lightning trains it: only the modulator learns, and only it is saved."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from modulant.backbones.stream import ResidualStream
from modulant.settings import NonNegativeFloat, PositiveFloat, Seed, checked
from modulators.arguments import BackboneDtype, CachePlace, Compile, Layers, Schedule, StoredDtype, refuse_geometry
from modulators.base import Modulator
from modulators.hooks import ModulatorHandle, attach
from modulators.initialisation import Geometry, InitialGeometry, TakesGeometry, initial_geometry, lexical_data
from modulators.training.frozen import FrozenT5
from modulators.training.lower_cache import CacheSettings
from modulators.training.objectives.base import Objective

_GEOMETRY = "modulant_geometry"  # its key in a checkpoint


class ModulatedT5(FrozenT5):
    """Definition → lemma through a frozen T5 whose encoder's residual stream is modulated.

    Trains with AdamW on an objective: by default T5's own loss, the teacher-forced cross-entropy (nats per target
    token). The backbone is in eval mode always, receives no gradient, and is in no checkpoint.

    A modulator's embeddings are initialised (`geometry`) once, before the first step or evaluation; a resumed run has
    them from its checkpoint.

    Args:
        modulator: the modulator's class and arguments; its stream follows from the backbone.
        backbone: ``mini`` (bundled), a folder, or a hub id such as google-t5/t5-small. A folder is in Hugging Face's
            layout.
        layers: encoder blocks to modulate: ``all``, or a list such as [3, 4, 5].
        lr: AdamW's learning rate; a modulator may scale it for some of its parameters.
        weight_decay: AdamW's weight decay; alphas get none, as it would pull them towards the middle.
        schedule: of the learning rate: ``cosine``, to zero over the run, or ``constant``.
        backbone_dtype: precision of the frozen weights: ``float32`` or ``bfloat16``. What learns and its optimizer stay
            in fp32.
        gradient_checkpointing: recompute the blocks' activations in the backward pass: slower, less memory.
        compile: ``true``: torch.compile for training steps; ``reduce-overhead``: CUDA graphs too. The latter is for
            small models.
        seed: of the randomly initialised encoder that figures are compared with.
        geometry: initialisation of the embeddings before training; null: the modulator's own.
        cache: compute the frozen blocks below `layers` once a run: in ``memory``, or on ``disk``. In memory is the
            model's device; on disk is a memory-mapped file. Batches then keep their members over the run, and the
            layers must not hold 0.
        cache_dtype: precision of the cache; null: the stream's own, which is exact. An fp32 stream in ``bfloat16``
            takes half the room and is rounded, so the run is another one.
        cache_limit_gib: the most that a process may keep, in GiB.
        cache_folder: where the file of ``disk`` goes; null: the run folder.
        objective: what training minimises; null: the lemma's cross-entropy.

    Raises:
        ValueError: an argument out of its range, by its key; no such backbone; a layer that it lacks; a geometry for a
            modulator that has none.
    """

    handle: ModulatorHandle | None
    modulator: Modulator

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
        super().__init__(
            "modulator",
            backbone,
            layers,
            lr,
            weight_decay,
            schedule,
            backbone_dtype,
            gradient_checkpointing,
            compile,
            seed,
            CacheSettings(cache, cache_dtype, cache_limit_gib, cache_folder),
            objective,
        )
        try:
            self.modulator = modulator(self.stream)
        except ValueError as error:
            raise ValueError(f"model.modulator: {error}") from error
        if geometry is not None and not isinstance(self.modulator, TakesGeometry):
            raise refuse_geometry(type(self.modulator).__name__)
        self.geometry = geometry
        self.provenance: dict[str, Any] | None = None  # of the initial geometry
        self._initialised = geometry is None
        if geometry is not None and geometry.kind == "none":
            self._with_geometry.freeze_geometry()

    @property
    def active_dims(self) -> Tensor:
        """The dimensions of the stream that the modulator may change."""
        return self.modulator.active_dims

    def _attach(self, model: Any) -> ModulatorHandle:
        return attach(model, self.modulator, self.layers)

    def _learned(self, prefix: str, keep_vars: bool) -> Mapping[str, Any]:
        return self.modulator.state_dict(prefix=prefix, keep_vars=keep_vars)

    def _load_learned(self, state: Mapping[str, Any], assign: bool) -> Any:
        return self.modulator.load_state_dict(state, strict=True, assign=assign)

    def _parameter_groups(self) -> list[dict[str, Any]]:
        return self.modulator.parameter_groups(self.lr, self.weight_decay)

    # The geometry, before the first step

    @property
    def _with_geometry(self) -> TakesGeometry:
        return cast(TakesGeometry, self.modulator)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._initialise()

    def on_validation_start(self) -> None:
        self._initialise()

    def on_test_start(self) -> None:
        self._initialise()

    def on_predict_start(self) -> None:
        self._initialise()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[_GEOMETRY] = self.provenance

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Whatever the configuration says now: a resumed run keeps its embeddings.
        self.provenance, self._initialised = checkpoint.get(_GEOMETRY), True

    @torch.no_grad()
    def _initialise(self) -> None:
        """Initialise the geometry, unless that is done or a checkpoint has brought it."""
        if self._initialised:
            return
        assert self.geometry is not None
        modulator, stream = self._with_geometry, self.stream
        if self.geometry.kind == "none":
            width = modulator.n_geometric_dims
            zeros = torch.zeros(stream.vocab_size, width), torch.zeros(stream.d_model, width)
            initial = InitialGeometry(*zeros, {"kind": "none"})
        else:
            initial = self._initial_geometry(self.geometry, modulator.n_geometric_dims)
        modulator.place_geometry(initial.rows, initial.projection)
        self.provenance, self._initialised = initial.provenance, True

    def _initial_geometry(self, geometry: Geometry, n_dims: int) -> InitialGeometry:
        """Every rank encodes its share of the population; rank 0 makes the geometry and broadcasts it."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(data, "population_batches"):
            raise ValueError("model.geometry: it is made from a WordNetDataModule's entries, and the run has none")
        first = self.trainer.is_global_zero
        if first:
            print(f"initialising the geometry ({geometry.kind}) …", flush=True)
        population = data.population
        encoded = self._base_representations(data.population_batches(), len(population)).cpu()
        initial = None
        if first:
            words = lexical_data(data.entries, population.synsets, population.held_out, encoded)
            initial = initial_geometry(geometry, words, self.model.shared.weight.float().cpu(), n_dims)
        initial = self.trainer.strategy.broadcast(initial)
        assert initial is not None
        return initial

    def _about(self) -> dict[str, Any]:
        return {
            "geometry": self.provenance,
            "modulator": type(self.modulator).__name__,
            "modulator_args": self.modulator.init_args,
            "expert_names": list(self.modulator.expert_names),
        }
