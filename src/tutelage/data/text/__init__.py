"""Data that are text: files, tokenizers, and batches of token ids."""
