"""Metrics and plots from stored predictions. Does not import training code."""
