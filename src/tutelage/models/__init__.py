"""Networks, one family per file, and the wrapper that reads their inner activations. Does not import sources."""
