"""What a wave language model does, each figure with a null: harmonics, fringes, stability, use of its parts, a trace."""
