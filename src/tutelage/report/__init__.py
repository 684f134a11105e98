"""Reads finished runs and writes what they say together: one page, markdown and CSV. Trains nothing."""
