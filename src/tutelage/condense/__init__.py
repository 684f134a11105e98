"""Few images that stand for a whole training set. Methods work on tensors alone, without Lightning or Hydra."""
