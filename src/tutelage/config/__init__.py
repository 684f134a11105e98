"""Turns configs into objects and refuses bad ones before anything trains. Starts no training."""
