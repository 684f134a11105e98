"""Trains many small students as one module. Does not import the report."""
