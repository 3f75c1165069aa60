"""LightningCLI as this project uses it: the parser, the run, the configuration it saves, user-supplied code."""
