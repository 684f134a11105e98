import pytest
import torch
from torch import nn

from tutelage.errors import TutelageError
from tutelage.models.resnet import ResNet

WIDE = (64, 128, 256, 512)


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("depth", "expected", "millions"),
    [
        (8, 83_892, 0.08),
        (14, 181_108, 0.18),
        (20, 278_324, 0.28),
        (32, 472_756, 0.47),
        (44, 667_188, 0.67),
        (56, 861_620, 0.86),
        (110, 1_736_564, 1.74),
    ],
)
def test_parameter_count_of_the_narrow_ones(depth: int, expected: int, millions: float) -> None:
    n = (depth - 2) // 6
    with torch.device("meta"):
        found = parameters(ResNet(3, 100, [n, n, n]))
    # a further block in every stage: 2 · (9c² + 2c) for c in 16, 32, 64
    by_hand = 278_324 + (n - 3) * (4_672 + 18_560 + 73_984)
    assert found == by_hand == expected
    assert round(found / 1e6, 2) == millions


def test_parameter_count_of_resnet20_layer_by_layer() -> None:
    stem, classifier = 3 * 16 * 9 + 32, 64 * 100 + 100
    same = [2 * (9 * c * c + 2 * c) for c in (16, 32, 64)]
    down = [9 * c * c // 2 + 2 * c + 9 * c * c + 2 * c + c * c // 2 + 2 * c for c in (32, 64)]
    assert stem + 3 * same[0] + down[0] + 2 * same[1] + down[1] + 2 * same[2] + classifier == 278_324


@pytest.mark.parametrize(("n", "expected", "millions"), [(1, 1_233_540, 1.23), (5, 7_433_860, 7.43)])
def test_parameter_count_of_the_wide_ones(n: int, expected: int, millions: float) -> None:
    with torch.device("meta"):
        found = parameters(ResNet(3, 100, [n, n, n], (64, 128, 256), stem=32))
    first = sum(9 * i * o + 2 * o + 9 * o * o + 2 * o + i * o + 2 * o for i, o in ((32, 64), (64, 128), (128, 256)))
    others = sum(2 * (9 * c * c + 2 * c) for c in (64, 128, 256))
    assert found == 3 * 32 * 9 + 64 + first + (n - 1) * others + 256 * 100 + 100 == expected
    assert round(found / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("name", "blocks", "bottleneck", "expected"),
    [
        ("resnet18", [2, 2, 2, 2], False, 11_220_132),
        ("resnet34", [3, 4, 6, 3], False, 21_328_292),
        ("resnet50", [3, 4, 6, 3], True, 23_705_252),
    ],
)
def test_four_stages_equal_torchvision_behind_a_small_stem(
    name: str, blocks: list[int], bottleneck: bool, expected: int
) -> None:
    models = pytest.importorskip("torchvision.models")
    theirs = models.get_model(name, num_classes=100)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    ours = ResNet(3, 100, blocks, WIDE, stem=64, bottleneck=bottleneck)
    assert parameters(ours) == expected
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_stages_halve_the_image_from_the_second_on() -> None:
    net, x = ResNet(1, 10, [1, 1, 1]), torch.zeros(1, 1, 28, 28)
    shapes = []
    for name, part in net.named_children():
        x = part(x)
        shapes.append((name, list(x.shape[1:])))
    assert shapes == [
        ("stem", [16, 28, 28]),
        ("stage1", [16, 28, 28]),
        ("stage2", [32, 14, 14]),
        ("stage3", [64, 7, 7]),
        ("embedding", [64]),
        ("classifier", [10]),
    ]


def test_convolutions_are_drawn_with_fan_out() -> None:
    torch.manual_seed(0)
    net = ResNet(3, 10, [1, 1, 1], (64, 128, 256), stem=32)
    for conv in (m for m in net.modules() if isinstance(m, nn.Conv2d)):
        expected = (2 / (conv.kernel_size[0] ** 2 * conv.out_channels)) ** 0.5
        assert abs(conv.weight.std().item() / expected - 1) < 0.06
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        assert bool((norm.weight == 1).all() and (norm.bias == 0).all())


@pytest.mark.parametrize(
    ("blocks", "widths"), [([3, 3], (16, 32, 64)), ([3, 0, 3], (16, 32, 64)), ([], ()), ([1], (0,))]
)
def test_a_stage_needs_blocks_and_a_width(blocks: list[int], widths: tuple[int, ...]) -> None:
    with pytest.raises(TutelageError, match="ResNet: one positive width and one positive number of blocks per stage"):
        ResNet(3, 10, blocks, widths)


def test_sizes_must_be_positive() -> None:
    with pytest.raises(TutelageError, match="ResNet: num_classes must be positive; found 0"):
        ResNet(3, 0, [1])
