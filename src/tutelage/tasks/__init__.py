"""What a label is, and how answers to it are measured, stored and shown. Imports neither Lightning nor Hydra."""
