import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.models.wide_resnet import PreactResidual, WideResNet


@pytest.mark.parametrize(
    ("depth", "k", "expected", "millions"),
    [(16, 1, 180_916, 0.18), (16, 2, 703_284, 0.70), (40, 1, 569_780, 0.57), (40, 2, 2_255_156, 2.26)],
)
def test_parameter_count(depth: int, k: int, expected: int, millions: float) -> None:
    with torch.device("meta"):
        found = sum(p.numel() for p in WideResNet(3, 100, depth, k).parameters())
    n, by_hand = (depth - 4) // 6, 3 * 16 * 9
    for i, o in ((16, 16 * k), (16 * k, 32 * k), (32 * k, 64 * k)):
        by_hand += 2 * i + 9 * i * o + 2 * o + 9 * o * o + (i * o if i != o else 0)
        by_hand += (n - 1) * 2 * (2 * o + 9 * o * o)
    assert found == by_hand + 2 * 64 * k + 6400 * k + 100 == expected
    assert round(found / 1e6, 2) == millions


def batch_norm(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Written out: training mode, biased variance over batch and image."""
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    scale, shift = norm.weight.reshape(1, -1, 1, 1), norm.bias.reshape(1, -1, 1, 1)
    return (x - mean) / (variance + norm.eps).sqrt() * scale + shift


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 6, 2), (4, 6, 1)])
def test_block_equals_its_definition(inputs: int, outputs: int, stride: int) -> None:
    block = PreactResidual(inputs, outputs, stride).double()
    conv1, bn2, _, conv2 = block.residual
    for norm in (block.bn1, bn2):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = torch.randn(3, inputs, 8, 8, dtype=torch.float64)
    activated = batch_norm(x, block.bn1).clamp(min=0)
    inner = batch_norm(F.conv2d(activated, conv1.weight, stride=stride, padding=1), bn2).clamp(min=0)
    expected = F.conv2d(inner, conv2.weight, padding=1)
    if inputs == outputs:
        expected = expected + x  # the shortcut carries x before its activation
    else:
        expected = expected + F.conv2d(activated, block.projection.weight, stride=stride)
    torch.testing.assert_close(block(x), expected)


def test_shapes_and_initial_weights() -> None:
    torch.manual_seed(0)
    net, x = WideResNet(1, 10, 16, 2), torch.zeros(1, 1, 28, 28)
    shapes = []
    for name, part in net.named_children():
        x = part(x)
        if name.startswith("stage"):
            shapes.append(list(x.shape[1:]))
    assert shapes == [[32, 28, 28], [64, 14, 14], [128, 7, 7]]
    last = net.stage3[1].residual[3]
    assert abs(last.weight.std().item() / (2 / (9 * 128)) ** 0.5 - 1) < 0.02
    assert bool((net.classifier.bias == 0).all())


@pytest.mark.parametrize("depth", [4, 20, 41, -2])
def test_depth_is_6n_plus_4(depth: int) -> None:
    with pytest.raises(TutelageError, match=rf"depth must be 6n \+ 4 .*; found {depth}"):
        WideResNet(3, 10, depth, 1)
