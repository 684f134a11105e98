"""Losses of networks that learn together."""
