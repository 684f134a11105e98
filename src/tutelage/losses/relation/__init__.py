"""Losses on relations between examples, one a file."""
