"""Simplices: volumes, many at once with their gradient, pentachora of a cloud."""
