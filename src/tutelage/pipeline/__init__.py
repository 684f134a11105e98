"""Decides what is trained, in which order, and what is reused. Contains no training step."""
