import pytest
import torch
import torch.nn.functional as F

from tutelage.errors import TutelageError
from tutelage.models.mlp import MLP


def parameters(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("widths", "expected"),
    [([], 7_850), ([32], 25_450), ([256, 256], 269_322), ([800, 800], 1_276_810), ([1200, 1200], 2_395_210)],
)
def test_parameter_count(widths: list[int], expected: int) -> None:
    assert parameters(MLP([1, 28, 28], widths, 10)) == expected


def test_computes_linear_relu_chain() -> None:
    net = MLP([2, 3], [5, 4], 3, dropout=0.5, input_dropout=0.2).double().eval()
    w1, b1, w2, b2, w3, b3 = net.parameters()
    x = torch.randn(7, 2, 3, dtype=torch.float64)
    last = ((x.reshape(7, 6) @ w1.T + b1).clamp(min=0) @ w2.T + b2).clamp(min=0)
    torch.testing.assert_close(net(x), last @ w3.T + b3)
    torch.testing.assert_close(net.hidden(x.flatten(1)), last)


def test_inputs_and_hidden_units_are_dropped_at_their_own_rates() -> None:
    torch.manual_seed(0)
    net = MLP([4000], [3000], 2, dropout=0.5, input_dropout=0.2)
    entering: list[torch.Tensor] = []
    for linear in (net.hidden[0][1], net.classifier):
        linear.register_forward_pre_hook(lambda _, args: entering.append(args[0]))
    hidden = net.hidden[0].register_forward_hook(lambda _, __, out: entering.append(out))
    net(torch.ones(8, 4000))
    hidden.remove()
    inputs, activation, dropped = entering
    assert abs((inputs == 0).double().mean() - 0.2) < 0.02
    survivors = dropped != 0
    assert abs(survivors[activation > 0].double().mean() - 0.5) < 0.02
    torch.testing.assert_close(dropped[survivors], 2 * activation[survivors])  # the tap is before dropout


def test_without_hidden_layers_it_is_a_linear_classifier() -> None:
    net = MLP([1, 2, 2], [], 3)
    x = torch.randn(5, 1, 2, 2)
    assert torch.equal(net(x), F.linear(x.flatten(1), net.classifier.weight, net.classifier.bias))


@pytest.mark.parametrize(("shape", "widths", "classes"), [([1, 0], [3], 2), ([4], [3, 0], 2), ([4], [3], 0)])
def test_sizes_must_be_positive(shape: list[int], widths: list[int], classes: int) -> None:
    with pytest.raises(TutelageError, match=r"MLP: .* must be positive; found .*0"):
        MLP(shape, widths, classes)
