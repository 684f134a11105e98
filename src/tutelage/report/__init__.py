"""Reads finished runs and writes a report on them: an HTML page, markdown and CSV. Trains nothing."""
