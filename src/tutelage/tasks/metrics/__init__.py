"""Figures of each task from stored predictions, in NumPy: a report reads thousands of runs without PyTorch."""
