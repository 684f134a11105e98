"""Losses on feature maps and embeddings, one a file."""
