"""Sources of data, one a file; order and augmentation as pure functions. Import no model."""
