"""Series along tokens: spectra, phases between heads, each beside what shuffled tokens give. No FFT over dimensions."""

PARTS = ("lens", "dimensions", "tokens", "heads")
