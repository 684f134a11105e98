"""Data sets, one per file; order and augmentation as pure functions. Does not import models."""
