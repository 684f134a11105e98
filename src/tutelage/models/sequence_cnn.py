"""A convolutional network for sequences of vectors, such as the points of pen strokes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.models.blocks import check_positive


class _Block(nn.Module):
    """Convolution over places, layer normalisation over channels, ReLU; places without a point stay 0."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int):
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(outputs)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Returns [B, outputs, L / stride] of [B, inputs, L]; ``mask`` [B, L / stride] is of the result."""
        found: Tensor = self.relu(self.norm(self.conv(x).transpose(1, 2)))
        return (found * mask[..., None]).transpose(1, 2)


class SequenceCNN(nn.Module):
    """Blocks of convolution, layer normalisation and ReLU; the largest activation over places; a linear classifier.

    Every block but the first halves the number of places. Padding changes nothing: places beyond the sequence are 0
    before each convolution, and do not count for the largest activation.

    Args:
        input_shape: [places, features].
        num_classes: number of logits.
        widths: channels of the blocks.
        kernel: places of a convolution, odd.
        hidden: units of the layer before the classifier.
        dropout: chance that one of these is dropped.

    Shape:
        input [B, L, F] floats, mask [B, L] bools, true for places of the sequence (absent: all are) → logits [B, C].

    Raises:
        TutelageError: ``input_shape`` is no sequence, or a size is not positive.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        widths: Sequence[int] = (32, 64, 128),
        kernel: int = 5,
        hidden: int = 64,
        dropout: float = 0.2,
    ):
        super().__init__()
        check_positive("SequenceCNN", num_classes=num_classes, widths=widths, kernel=kernel, hidden=hidden)
        if len(input_shape) != 2 or min(input_shape) < 1 or not widths or kernel % 2 == 0:
            raise TutelageError(
                "SequenceCNN: expected input_shape [places, features], at least one width and an odd kernel; found "
                f"{list(input_shape)}, {list(widths)} and {kernel}"
            )
        self.features = input_shape[1]
        sizes = [self.features, *widths]
        self.blocks = nn.ModuleList(
            _Block(sizes[i], sizes[i + 1], kernel, 1 if i == 0 else 2) for i in range(len(widths))
        )
        self.embedding = nn.Sequential(nn.Linear(sizes[-1], hidden), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, num_classes)

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns logits [B, C]."""
        if input.ndim != 3 or input.shape[2] != self.features:
            raise TutelageError(
                f"SequenceCNN reads sequences [B, places, {self.features}]; found {list(input.shape)} (reads says "
                "which field of a batch it is)"
            )
        there = torch.ones(input.shape[:2], dtype=torch.bool, device=input.device) if mask is None else mask
        x = (input * there[..., None]).transpose(1, 2)
        for place, block in enumerate(self.blocks):
            there = there if place == 0 else there[:, ::2]
            x = block(x, there)
        logits: Tensor = self.classifier(self.dropout(self.embedding(x.amax(2))))  # activations are at least 0
        return logits
