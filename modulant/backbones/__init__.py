"""Frozen backbones: found, loaded, frozen, split at a block, and sharded over processes."""
