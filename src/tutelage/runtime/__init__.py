"""Processes: a job's life, signals, locks, ranks, atomic files. Knows nothing of networks."""
