import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.models.shufflenet_v1 import ShuffleNetV1, ShuffleUnit
from tutelage.models.shufflenet_v2 import ShuffleNetV2


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_parameter_count_of_v1() -> None:
    with torch.device("meta"):
        found = parameters(ShuffleNetV1(3, 100))
    by_hand, i, g = 3 * 24 + 2 * 24, 24, 3
    for width, units in ((240, 4), (480, 8), (960, 4)):
        for unit in range(units):
            grown = width - i if unit == 0 else width  # the first unit's average pooling brings the rest
            m = grown // 4
            by_hand += i * m // (1 if i == 24 else g) + 2 * m + 9 * m + 2 * m + m * grown // g + 2 * grown
            i = width
    assert found == by_hand + 960 * 100 + 100 == 949_258
    assert round(found / 1e6, 2) == 0.95


def test_parameter_count_of_v2() -> None:
    with torch.device("meta"):
        found = parameters(ShuffleNetV2(3, 100))
    by_hand, i = 3 * 24 + 2 * 24, 24
    for width, units in ((116, 4), (232, 8), (464, 4)):
        h = width // 2
        by_hand += (9 * i + 2 * i + i * h + 2 * h) + (i * h + 2 * h + 9 * h + 2 * h + h * h + 2 * h)
        by_hand += (units - 1) * (2 * (h * h + 2 * h) + 9 * h + 2 * h)
        i = width
    assert found == by_hand + (464 * 1024 + 2 * 1024) + (1024 * 100 + 100) == 1_355_528
    assert round(found / 1e6, 2) == 1.36


def test_v2_equals_torchvision_behind_a_small_stem() -> None:
    shufflenetv2 = pytest.importorskip("torchvision.models.shufflenetv2")
    theirs = shufflenetv2.ShuffleNetV2([4, 8, 4], [24, 116, 232, 464, 1024], num_classes=7)
    theirs.conv1[0], theirs.maxpool = nn.Conv2d(3, 24, 1, bias=False), nn.Identity()
    ours = ShuffleNetV2(3, 7)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Output channel c · groups + g is input channel g · (C / groups) + c."""
    per_group = x.shape[1] // groups
    return x[:, [g * per_group + c for c in range(per_group) for g in range(groups)]]


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(24, 48, 2), (24, 24, 1), (36, 60, 2), (36, 36, 1)])
def test_v1_unit_equals_its_definition(inputs: int, outputs: int, stride: int) -> None:
    unit = ShuffleUnit(inputs, outputs, stride, groups=3).double().eval()
    weights = [m.weight for m in unit.modules() if isinstance(m, nn.Conv2d)]
    x = torch.randn(2, inputs, 8, 8, dtype=torch.float64).relu()
    scale = (1 + 1e-5) ** -0.5  # a fresh batch normalisation in evaluation: mean 0, variance 1, eps
    first = 1 if inputs == 24 else 3
    y = shuffled((F.conv2d(x, weights[0], groups=first) * scale).relu(), first)
    y = (F.conv2d(y, weights[1], stride=stride, padding=1, groups=len(weights[1])) * scale).relu()
    y = F.conv2d(y, weights[2], groups=3) * scale
    expected = torch.cat([y, F.avg_pool2d(x, 3, 2, padding=1)], 1) if stride == 2 else x + y
    torch.testing.assert_close(unit(x), expected)
    assert expected.shape == (2, outputs, 8 // stride, 8 // stride)


@pytest.mark.parametrize(("family", "channels"), [(ShuffleNetV1, [240, 480, 960]), (ShuffleNetV2, [116, 232, 464])])
def test_every_stage_halves_the_image(family: type[ShuffleNetV1] | type[ShuffleNetV2], channels: list[int]) -> None:
    net, x = family(1, 10), torch.zeros(1, 1, 28, 28)
    shapes = []
    for name, part in net.named_children():
        x = part(x)
        if name.startswith("stage"):
            shapes.append(list(x.shape[1:]))
    assert shapes == [[channels[0], 14, 14], [channels[1], 7, 7], [channels[2], 4, 4]]


@pytest.mark.parametrize("widths", [(240, 484, 960), (24, 480, 960), (240, 240, 960), (238, 480, 960)])
def test_v1_widths_fit_the_groups(widths: tuple[int, ...]) -> None:
    with pytest.raises(TutelageError, match=r"ShuffleNetV1: the width of stage \d.* must be multiples of 4 · 3 groups"):
        ShuffleNetV1(3, 10, widths=widths)


def test_v2_widths_are_even() -> None:
    with pytest.raises(TutelageError, match="ShuffleNetV2: widths must be even"):
        ShuffleNetV2(3, 10, widths=(116, 231, 464))
