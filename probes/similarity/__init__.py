"""Agreement of an encoder with people about which words are similar, before and after a modulator."""
