"""Trained networks as files that others run, and what these files measure."""
