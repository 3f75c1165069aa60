from .artifact.pretrained import PretrainedModulator, attach_pretrained, load_modulated, save_modulator, write_card
from .backbone import ResidualStream, load_t5, stream_of
from .base import Modulator
from .field.modulator import FieldModulator
from .hooks import ModulatorHandle, attach
from .initialisation import Geometry
from .inspection import Inspection
from .lerp import LerpModulator
from .lift import relational_lift
from .merging import merge
from .registry import register
from .similarity import mean_embedding, word_similarity
from .summary import Summary
from .training.causal import ModulatedCausalLM
from .training.controls.adapted import AdaptedCausalLM, AdaptedEncoder, AdaptedT5
from .training.controls.tuned import TunedCausalLM, TunedEncoder, TunedT5
from .training.encoder import ModulatedEncoder
from .training.objectives.base import Objective
from .training.objectives.lemma import LemmaObjective
from .training.objectives.relational import RelationalObjective
from .training.objectives.weighted import WeightedObjectives
from .training.pretraining import PretrainT5
from .training.seq2seq import ModulatedT5

__all__ = [
    "AdaptedCausalLM",
    "AdaptedEncoder",
    "AdaptedT5",
    "FieldModulator",
    "Geometry",
    "Inspection",
    "LemmaObjective",
    "LerpModulator",
    "ModulatedCausalLM",
    "ModulatedEncoder",
    "ModulatedT5",
    "Modulator",
    "ModulatorHandle",
    "Objective",
    "PretrainT5",
    "PretrainedModulator",
    "RelationalObjective",
    "ResidualStream",
    "Summary",
    "TunedCausalLM",
    "TunedEncoder",
    "TunedT5",
    "WeightedObjectives",
    "attach",
    "attach_pretrained",
    "load_modulated",
    "load_t5",
    "mean_embedding",
    "merge",
    "register",
    "relational_lift",
    "save_modulator",
    "stream_of",
    "word_similarity",
    "write_card",
]
