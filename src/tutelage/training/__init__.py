"""LightningModules, the training loop and sharding. Knows no config and no folder of a job."""
