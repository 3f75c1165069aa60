"""What lies along tokens: shape of attention, spectra and phases."""
