"""Differences between the host and an accelerator that a training step must know of."""

import torch


def waits(device: torch.device) -> bool:
    """Checks whether the host must wait for ``device`` to finish its work before it can read a value there."""
    return device.type != "cpu"
