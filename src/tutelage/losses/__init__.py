"""Loss modules on plain tensors. Import neither networks, nor configs, nor Lightning."""
