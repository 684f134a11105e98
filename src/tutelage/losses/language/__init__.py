"""Losses of language models: distributions over a vocabulary, a row a token."""
