"""Callbacks of the Trainer: recovery, best weights, averages, progress. Import no loss."""
