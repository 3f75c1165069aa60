"""Kinds of frozen backbones: how each is loaded, run and measured, whatever is attached to it."""
