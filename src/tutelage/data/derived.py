"""Further fields of a batch that are computed from its images, such as their edges: a second modality of any images."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F


@runtime_checkable
class Derived(Protocol):
    """Computes a field from images; row i of it is a function of ``images[i]`` alone."""

    def __call__(self, images: Tensor) -> Tensor:
        """Returns the field [B, …] of images [B, C, H, W] float32 in [0, 1], augmented and not normalised."""


class Sobel:
    """The strength of edges: √(g_x² + g_y²) / 4 of the mean over channels, g by Sobel's 3×3 filters.

    Pixels at the border are repeated beyond it. A step from 0 to 1 along an axis has strength 1 on both of its sides.

    Shape:
        images [B, C, H, W] → [B, 1, H, W].
    """

    def __call__(self, images: Tensor) -> Tensor:
        """Returns the edges [B, 1, H, W] of images in [0, 1]."""
        across = images.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
        filters = torch.stack([across, across.T])[:, None]
        padded = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        return F.conv2d(padded, filters).square().sum(1, keepdim=True).sqrt() / 4
