"""Field modulator: k-simplex experts measure local geometry and gate the stream multiplicatively."""

from modulators.field.modulator import FieldModulator

__all__ = ["FieldModulator"]
