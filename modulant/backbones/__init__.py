"""Frozen backbones: find, load, freeze, split at a block, shard over processes."""
