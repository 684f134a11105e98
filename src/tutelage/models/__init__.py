"""Networks, one family a file, and the wrapper that reads their inner activations. Import no source."""
