"""The fair experiment: each claim of the wave language model beside its control, at equal tokens and parameters."""
