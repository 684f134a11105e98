"""Examples in two modalities: an image and something else of the same thing, as fields of one batch."""
