"""A search of settings with Optuna."""
