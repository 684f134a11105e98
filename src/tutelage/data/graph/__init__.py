"""Nodes of one graph: files, splits and batches."""
