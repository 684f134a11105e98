"""Students whose weights and activations have few bits while they train."""
