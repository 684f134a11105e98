"""Trains many small students as one module. Knows nothing of the report."""
