"""Losses of regression."""
