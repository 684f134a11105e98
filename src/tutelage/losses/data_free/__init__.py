"""Losses of generators that make images for a student without data."""
