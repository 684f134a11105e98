"""Decides what is trained, in which order, and what is made or found again. Holds no training step."""
