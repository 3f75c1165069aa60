"""Relational figures of any encoder over the whole population."""
