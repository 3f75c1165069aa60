"""What a wave language model does, each figure with a null: harmonics, fringes, stability, usage; and a trace."""
