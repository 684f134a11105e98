"""Kinds of labels, with metrics, storage and display of their predictions. Imports neither Lightning nor Hydra."""
