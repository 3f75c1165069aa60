"""The command line: read, checked and explained before anything heavy is imported, then run by LightningCLI.

Only `run`, `parser`, `saving`, `look`, `plan` and `own_code` import torch.
"""
