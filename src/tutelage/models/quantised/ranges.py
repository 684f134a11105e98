"""Activations rounded to few values within a range that follows the batches."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tutelage.models.quantised.weights import SMALLEST


class MovingRange(nn.Module):
    """Unsigned integers of b bits, with one scale and one zero point, for an activation.

    ``x̂ = s·(clamp(round(x/s) + z, 0, 2^b − 1) − z)``, ``s = (high − low)/(2^b − 1)``, ``z = round(−low/s)``, the range
    widened to hold 0. In train mode ``low += m·(min x − low)``, ``high += m·(max x − high)`` first, from the first
    batch's own on; over ranks of the whole batch, so that all have the same. Gradients pass straight through within
    the range and are 0 beyond it. Without a range, before the first batch, x stays as it is.

    Args:
        bits: b.
        momentum: m.

    Shape:
        [B, …] → the same.

    Attributes:
        frozen: whether the range stays as it is in train mode, too.
    """

    low: Tensor
    high: Tensor

    def __init__(self, bits: int, momentum: float):
        super().__init__()
        self.bits, self.momentum, self.frozen = bits, momentum, False
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    @property
    def levels(self) -> int:
        """Returns the greatest code."""
        return 2**self.bits - 1

    def grid(self) -> tuple[Tensor, Tensor]:
        """Returns scale (float32) and zero point (int32), scalars."""
        low, high = self.low.clamp(max=0.0).float(), self.high.clamp(min=0.0).float()
        scale = ((high - low) / self.levels).clamp(min=SMALLEST)
        return scale, (-low / scale).round().clamp(0, self.levels).int()

    def forward(self, x: Tensor) -> Tensor:
        """Returns the rounded activation."""
        if x.is_meta:  # torch's operator does not exist for shapes alone
            return x
        if self.training and not self.frozen:
            self.observe(x)
        scale, zero = self.grid()
        rounded = torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, 0, self.levels).to(x.dtype)
        return rounded if self.training else torch.where(self.high > self.low, rounded, x)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Moves the range towards that of a batch."""
        least, greatest = torch.aminmax(x.detach())
        found = torch.stack([-least, greatest]).to(self.low.dtype)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        known = self.high > self.low
        for own, new in ((self.low, -found[0]), (self.high, found[1])):
            own.copy_(torch.where(known, own + self.momentum * (new - own), new))
