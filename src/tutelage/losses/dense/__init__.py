"""Losses of dense prediction: maps of features or of logits."""
