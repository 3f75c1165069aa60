"""The command line: read, checked and explained before anything heavy is imported, then run by LightningCLI.

Only the rooms `running` and `dry_run` import torch.
"""
