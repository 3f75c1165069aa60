"""How much sampled figures move between seeds."""
