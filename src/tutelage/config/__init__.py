"""Turns configs into objects and rejects bad ones before training. Starts no training."""
