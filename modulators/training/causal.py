"""A frozen causal language model with a modulator attached, as Lightning trains it: Llama, GPT-2 and their like."""

from collections.abc import Callable

from modulant.backbones.stream import ResidualStream
from modulant.settings import NonNegativeFloat, PositiveFloat, Seed, checked
from modulators.arguments import BackboneDtype, Compile, Layers, Schedule
from modulators.base import Modulator
from modulators.initialisation import Geometry
from modulators.training.frozen.base import FrozenSettings
from modulators.training.frozen.causal import FrozenCausalLM
from modulators.training.modulated import Modulated
from modulators.training.objectives.base import Objective


class ModulatedCausalLM(Modulated, FrozenCausalLM):
    """Definition → lemma through a frozen causal model whose residual stream is modulated.

    The model reads ``definition, in one word: lemma`` and learns by the cross-entropy of the lemma's tokens and its end
    token, in nats per token. A definition's representation, which relations are trained and measured on, is the mean
    over its own tokens of the last hidden state, after the final norm. The backbone is in eval mode always, receives no
    gradient, and is in no checkpoint.

    What `Modulated` and `FrozenModel` say of arguments holds here.

    Args:
        backbone: a folder in Hugging Face's layout, or a hub id such as HuggingFaceTB/SmolLM2-135M: a GPT-2, GPT-NeoX,
            Llama, Qwen, Mistral, Gemma or Phi.
        seed: of the randomly initialised model that figures are compared with.
        objective: what training minimises; null: the lemma's cross-entropy.

    Raises:
        ValueError: an argument out of its range, by its key; no such backbone, or one that is no causal model; a layer
            that it lacks; a geometry for a modulator that has none.
    """

    @checked
    def __init__(
        self,
        modulator: Callable[[ResidualStream], Modulator],
        backbone: str = "HuggingFaceTB/SmolLM2-135M",
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
