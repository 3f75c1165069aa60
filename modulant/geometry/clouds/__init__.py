"""Clouds of points: dimensions, moments, likeness of two, maps from one to another."""
