"""Configurations: found and read as files, saved by a run, merged, and checked against cli/schema.json."""
