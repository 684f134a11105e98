import pytest
import torch
import torch.nn.functional as F

from tutelage.errors import TutelageError
from tutelage.models.cnn import CNN
from tutelage.models.lenet import LeNet5


def parameters(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_cnn_has_the_layers_of_the_seed() -> None:
    net = CNN([1, 28, 28], 10)
    assert [p.numel() for p in net.parameters()] == [72, 8, 1152, 16, 25088, 32, 320, 10]
    assert parameters(net) == 80 + 1_168 + 25_120 + 330 == 26_698


@pytest.mark.parametrize(("widths", "expected"), [((6, 16, 120, 84), 61_706), ((3, 8, 60, 42), 15_738)])
def test_lenet_parameter_count(widths: tuple[int, ...], expected: int) -> None:
    c1, c3, c5, f6 = widths
    by_hand = 26 * c1 + (25 * c1 + 1) * c3 + (25 * c3 + 1) * c5 + (c5 + 1) * f6 + (f6 + 1) * 10
    assert parameters(LeNet5([1, 28, 28], 10, widths)) == by_hand == expected


def test_cnn_computes_its_definition() -> None:
    net = CNN([3, 11, 9], 4).double().eval()
    w1, b1, w2, b2, w3, b3, w4, b4 = net.parameters()
    image = x = torch.randn(2, 3, 11, 9, dtype=torch.float64)
    for w, b in ((w1, b1), (w2, b2)):
        x = F.max_pool2d(F.conv2d(x, w, b, padding=1).relu(), 2)
    torch.testing.assert_close(net(image), (x.flatten(1) @ w3.T + b3).relu() @ w4.T + b4)


def test_cnn_drops_hidden_units_only_in_training() -> None:
    net, image = CNN([1, 8, 8], 3), torch.randn(4, 1, 8, 8)
    assert net.dropout.p == 0.2
    assert not torch.equal(net(image), net(image))
    assert torch.equal(net.eval()(image), net(image))


def test_lenet_computes_its_definition() -> None:
    net = LeNet5([1, 28, 28], 10).double()
    w1, b1, w3, b3, w5, b5, w6, b6, w7, b7 = net.parameters()
    image = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    x = F.max_pool2d(F.conv2d(F.pad(image, (2, 2, 2, 2)), w1, b1).relu(), 2)
    x = F.max_pool2d(F.conv2d(x, w3, b3).relu(), 2)
    assert x.shape == (2, 16, 5, 5)
    x = ((x.flatten(1) @ w5.T + b5).relu() @ w6.T + b6).relu()
    torch.testing.assert_close(net(image), x @ w7.T + b7)


@pytest.mark.parametrize("shape", [[28, 28], [1, 28, 3], [0, 28, 28], [1, 28, 28, 1]])
@pytest.mark.parametrize("family", [CNN, LeNet5])
def test_needs_an_image_of_some_size(family: type[CNN] | type[LeNet5], shape: list[int]) -> None:
    with pytest.raises(TutelageError, match=rf"{family.__name__}: input_shape .* at least \d+; found \{shape}"):
        family(shape, 10)


@pytest.mark.parametrize(("family", "least"), [(CNN, 4), (LeNet5, 12)])
def test_smallest_image(family: type[CNN] | type[LeNet5], least: int) -> None:
    assert family([1, least, least], 10)(torch.zeros(1, 1, least, least)).shape == (1, 10)
    with pytest.raises(TutelageError, match=f"at least {least}"):
        family([1, least, least - 1], 10)


def test_lenet_has_four_widths() -> None:
    with pytest.raises(TutelageError, match=r"C1, C3, C5 and F6; found \[6, 16\]"):
        LeNet5([1, 28, 28], 10, [6, 16])
