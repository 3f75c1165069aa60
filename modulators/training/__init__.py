"""The LightningModules, and what training over a frozen backbone needs."""
