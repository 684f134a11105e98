"""The images that have been made for a student so far."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """Images in 8 bits, as files of images have them, in the order in which they were made.

    They are part of a training's state, so that a resumed run goes on with the same images.
    """

    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(0, dtype=torch.uint8), persistent=False)  # it grows: extra state

    def add(self, pixels: Tensor) -> None:
        """Takes in images [n, C, H, W] in [0, 1]."""
        new = (pixels.detach() * 255).round().clamp(0, 255).to(torch.uint8)
        self.images = torch.cat([self.images, new]) if len(self.images) else new

    def batches(self, count: int, number: int) -> Iterator[Tensor]:
        """Yields ``number`` batches [count, C, H, W] in [0, 1]: passes over all images, each in an order of its own."""
        order = torch.zeros(0, dtype=torch.long, device=self.images.device)
        for _ in range(number):
            while len(order) < count:
                order = torch.cat([order, torch.randperm(len(self.images), device=order.device)])
            yield self.images[order[:count]].to(torch.get_default_dtype()) / 255  # that of the networks
            order = order[count:]

    def newest(self, count: int) -> Tensor:
        """Returns the last ``count`` images, or all if there are fewer: [n, C, H, W] in [0, 1]."""
        return self.images[-count:].float() / 255

    def get_extra_state(self) -> Tensor:
        """Returns the images."""
        return self.images

    def set_extra_state(self, state: Tensor) -> None:
        """Takes images over."""
        self.images = state.to(self.images.device)
