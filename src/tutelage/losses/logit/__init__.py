"""Losses on logits, one a file."""
