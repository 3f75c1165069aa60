"""What learns is a modulator: how it is built, attached, optimised and saved, and the geometry that it begins with."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from modulant.backbones.stream import ResidualStream
from modulators.arguments import check_alignment, refuse_geometry
from modulators.base import Modulator
from modulators.hooks import ModulatorHandle, attach
from modulators.initialisation import Geometry, InitialGeometry, TakesGeometry, initial_geometry, lexical_data
from modulators.training.frozen.base import FrozenModel

_GEOMETRY = "modulant_geometry"  # its key in a checkpoint


class Modulated(FrozenModel):
    """A frozen model with a modulator, whatever the backbone: a mixin, named before the backbone's class.

    A modulator's embeddings are initialised (`geometry`) once, before the first step or evaluation; a resumed run has
    them from its checkpoint.

    Args:
        modulator: the modulator's class and arguments; its stream follows from the backbone.
        layers: blocks to modulate: ``all``, or a list such as [3, 4, 5].
        lr: AdamW's learning rate; a modulator may scale it for some of its parameters.
        weight_decay: AdamW's weight decay; alphas get none, as it would pull them towards the middle.
        geometry: initialisation of the embeddings before training; null: the modulator's own.
    """

    handle: ModulatorHandle | None
    modulator: Modulator
    _learns = "modulator"

    def _build(self, modulator: Callable[[ResidualStream], Modulator], geometry: Geometry | None) -> None:
        """Build the modulator for the backbone's stream; the constructor's last step.

        Raises:
            ValueError: an argument of the modulator out of its range; a geometry for a modulator that has none.
        """
        try:
            self.modulator = modulator(self.stream)
        except ValueError as error:
            raise ValueError(f"model.modulator: {error}") from error
        if geometry is not None and not isinstance(self.modulator, TakesGeometry):
            raise refuse_geometry(type(self.modulator).__name__)
        if geometry is not None and geometry.kind != "none":
            check_alignment(self._with_geometry.n_geometric_dims, self.stream.d_model)
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

    def _about(self) -> dict[str, Any]:
        return {
            "geometry": self.provenance,
            "modulator": type(self.modulator).__name__,
            "modulator_args": self.modulator.init_args,
            "expert_names": list(self.modulator.expert_names),
        }

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
            initial = initial_geometry(geometry, words, self.embed.weight.float().cpu(), n_dims)
        initial = self.trainer.strategy.broadcast(initial)
        assert initial is not None
        return initial
