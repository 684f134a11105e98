import pytest
import torch
from torch import nn

from tutelage.errors import TutelageError
from tutelage.models.mobilenet_v2 import InvertedResidual, MobileNetV2


def test_parameter_count_of_the_published_student() -> None:
    with torch.device("meta"):
        found = sum(p.numel() for p in MobileNetV2(3, 100, width=0.5, expansion=6).parameters())
    by_hand, i = 3 * 16 * 9 + 2 * 16, 16
    rows = [(1, 8, 1), (6, 12, 2), (6, 16, 3), (6, 32, 4), (6, 48, 3), (6, 80, 3), (6, 160, 1)]
    for t, o in ((t, o) for t, o, count in rows for _ in range(count)):
        by_hand += (i * t * i + 2 * t * i) + (9 * t * i + 2 * t * i) + (t * i * o + 2 * o)
        i = o
    assert found == by_hand + (160 * 1280 + 2 * 1280) + (1280 * 100 + 100) == 812_836
    assert round(found / 1e6, 2) == 0.81


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 6, 1), (4, 4, 2)])
def test_block_equals_torchvision_with_relu(inputs: int, outputs: int, stride: int) -> None:
    mobilenetv2 = pytest.importorskip("torchvision.models.mobilenetv2")
    theirs = mobilenetv2.InvertedResidual(inputs, outputs, stride, expand_ratio=6)
    theirs.conv[0][2] = theirs.conv[1][2] = nn.ReLU()
    ours = InvertedResidual(inputs, outputs, stride, expansion=6)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.randn(2, inputs, 8, 8)
    torch.testing.assert_close(ours(x), theirs(x))


def test_stages_start_where_the_image_shrinks() -> None:
    net, x = MobileNetV2(3, 10), torch.zeros(1, 3, 32, 32)
    shapes = {}
    for name, part in net.named_children():
        x = part(x)
        shapes[name] = list(x.shape[1:])
    assert shapes == {
        "stem": [16, 16, 16],
        "stage1": [12, 16, 16],
        "stage2": [16, 8, 8],
        "stage3": [48, 4, 4],
        "stage4": [160, 2, 2],
        "head": [1280, 2, 2],
        "embedding": [1280],
        "classifier": [10],
    }


def test_initial_weights() -> None:
    torch.manual_seed(0)
    net = MobileNetV2(3, 100)
    assert abs(net.head[0].weight.std().item() / (2 / 1280) ** 0.5 - 1) < 0.02
    assert abs(net.classifier.weight.std().item() / 0.01 - 1) < 0.02
    assert bool((net.classifier.bias == 0).all())


@pytest.mark.parametrize("width", [0.0, 0.05, 1.4])
def test_width_is_a_factor(width: float) -> None:
    with pytest.raises(TutelageError, match=f"width must be from 1/16 to 1; found {width}"):
        MobileNetV2(3, 10, width)
