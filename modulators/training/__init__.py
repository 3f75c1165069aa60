"""The LightningModules, and helpers for training on a frozen backbone."""
