"""The original and the modulated model side by side: generation, a page of answers, a conversation."""
