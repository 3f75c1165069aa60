"""A modulator's controls: LoRA or IA³ in the same blocks, with as many parameters, and the blocks trained whole."""
