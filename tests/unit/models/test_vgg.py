import pytest
import torch
from torch import nn

from tutelage.errors import TutelageError
from tutelage.models.vgg import VGG

WIDTHS = (64, 128, 256, 512, 512)


@pytest.mark.parametrize(
    ("convolutions", "expected", "millions"),
    [
        ([1, 1, 1, 1, 1], 3_965_028, 3.97),
        ([1, 1, 2, 2, 2], 9_277_284, 9.28),
        ([2, 2, 2, 2, 2], 9_462_180, 9.46),
        ([2, 2, 3, 3, 3], 14_774_436, 14.77),
        ([2, 2, 4, 4, 4], 20_086_692, 20.09),
    ],
)
def test_parameter_count(convolutions: list[int], expected: int, millions: float) -> None:
    with torch.device("meta"):
        found = sum(p.numel() for p in VGG(3, 100, convolutions).parameters())
    outputs = [width for width, count in zip(WIDTHS, convolutions, strict=True) for _ in range(count)]
    by_hand = sum(9 * i * o + o + 2 * o for i, o in zip([3, *outputs], outputs, strict=False))
    assert found == by_hand + 512 * 100 + 100 == expected
    assert round(found / 1e6, 2) == millions


def test_equals_torchvision_without_its_last_two_poolings() -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        layers = list(models.vgg13_bn().features)
    pools = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    layers = [layer for i, layer in enumerate(layers) if i not in pools[3:]]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 7)]
    theirs = nn.Sequential(*layers).to_empty(device="cpu").append(nn.Sequential(*head))
    ours = VGG(3, 7, [2, 2, 2, 2, 2])
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_initial_weights() -> None:
    torch.manual_seed(0)
    net = VGG(3, 100, [1, 1, 1, 1, 1])
    conv, norm = net.stage4.preact[1:3]
    assert abs(conv.weight.std().item() / (2 / (9 * 512)) ** 0.5 - 1) < 0.01
    assert abs(net.classifier.weight.std().item() / 0.01 - 1) < 0.02
    for zero in (conv.bias, norm.bias, net.classifier.bias, norm.weight - 1):
        assert bool((zero == 0).all())


def test_a_stage_needs_convolutions() -> None:
    with pytest.raises(TutelageError, match=r"VGG: one positive width .* found widths .* and \[1, 1, 1\] blocks"):
        VGG(3, 10, [1, 1, 1])
