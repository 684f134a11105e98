"""Losses of text encoders: states and attention of transformers."""
