"""Structured pruning: what is left computes what the wide network does without the removed channels."""

from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from tutelage.errors import TutelageError
from tutelage.models.adapter import Repeat
from tutelage.models.fewer_channels import FewerChannels
from tutelage.models.tapped import Tapped

NETS = ["vgg4", "resnet8", "wrn_16_1", "mobilenet_v2", "lenet5_bn", "cnn", "mlp", "torchvision", "timm"]


def perceptron(*widths):
    sizes = (4, *widths, 3)
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def made(compose, name):
    cfg = compose("data=cifar10", f"model@student={name}", f"model@teacher={name}")
    torch.manual_seed(0)
    return instantiate(cfg.student).net.eval()


def silence_half(net):
    """Sets what the last half of the channels of every layer computes, and what reads them, to zero."""
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.running_mean.normal_(0, 0.1)
                module.running_mean[len(module.running_mean) // 2 :] = 0
            if isinstance(module, nn.BatchNorm2d) or (module in layers and module is not layers[-1]):
                for one in filter(lambda given: given is not None, (module.weight, module.bias)):
                    one[len(one) // 2 :] = 0
        for layer in layers[1:]:
            if (inputs := layer.weight.shape[1]) > 1:  # 1: a convolution of each channel by itself
                layer.weight[:, inputs // 2 :] = 0


@pytest.mark.parametrize("name", NETS)
def test_channels_that_do_nothing_may_go(compose, name):
    net, images = made(compose, name), torch.randn(2, 3, 32, 32)
    silence_half(net)
    with torch.no_grad():
        expected = net(images)
        found = FewerChannels([3, 32, 32]).of(deepcopy(net))
        torch.testing.assert_close(found(images), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert float(expected.std()) > 0
    count = [sum(p.numel() for p in one.parameters()) for one in (net, found)]
    assert count[1] < 0.6 * count[0]


@pytest.mark.parametrize("norm", [1, 2])
def test_the_largest_channels_by_the_formula_stay(norm):
    net = perceptron(5)
    first, last = net[0].weight.detach().clone(), net[2].weight.detach().clone()
    importance = (first.abs().pow(norm).sum(1) + last.abs().pow(norm).sum(0)) / 2
    kept = importance.topk(2).indices.sort().values
    FewerChannels([4], keep=0.4, norm=norm).of(net)
    assert torch.equal(net[0].weight, first[kept])
    assert torch.equal(net[2].weight, last[:, kept])


@pytest.mark.parametrize(("keep", "left"), [(1.0, 10), (0.7, 7), (0.3, 3), (0.1, 1), (0.05, 10), (0.99, 9)])
def test_the_number_of_channels_is_exact(keep, left):
    net = perceptron(10, 30)
    FewerChannels([4], keep=keep).of(net)
    assert net[0].out_features == left
    assert net[4].out_features == 3


def test_the_number_can_be_a_multiple_and_layers_can_stay_whole():
    net = FewerChannels([4], keep=0.5, round_to=4, whole=["0"]).of(perceptron(10, 30))
    assert (net[0].out_features, net[2].out_features) == (10, 12)


def test_shapes_depend_on_the_config_alone():
    shapes = []
    for seed in range(3):
        torch.manual_seed(seed)
        state = torch.random.get_rng_state()
        net = FewerChannels([4], keep=0.4).of(perceptron(10, 20))
        shapes.append([p.shape for p in net.parameters()])
        assert net.training
    assert shapes[0] == shapes[1] == shapes[2]
    torch.manual_seed(2)
    assert torch.equal(state, torch.random.get_rng_state())


def test_weights_of_a_wide_network_are_taken_by_its_own_channels():
    narrow, wide = FewerChannels([4], keep=0.5), perceptron(8).requires_grad_(False)
    student = narrow.of(perceptron(8))
    theirs = narrow.as_in(student, wide)
    assert theirs is not wide
    assert wide[0].out_features == 8
    assert all(any(torch.equal(row, one) for one in wide[0].weight) for row in theirs[0].weight)
    assert narrow.as_in(student, theirs) is theirs


def test_an_adapter_s_images_are_those_that_the_network_reads():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    made = Tapped(net, adapter=Repeat(3), channels=FewerChannels([1, 8, 8]))
    assert made(torch.randn(2, 1, 8, 8))["logits"].shape == (2, 10)
    assert made.net[0].out_channels == 4


class Shuffled(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(self.a(x).mean((2, 3))[:, torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])])


def test_channels_that_are_mixed_unseen_are_refused():
    with pytest.raises(TutelageError, match="Shuffled can't be pruned by channels"):
        FewerChannels([1, 8, 8]).of(Shuffled())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"keep": 0}, "channels.keep must be a number above 0 and ≤ 1; found 0"),
        ({"keep": 1.1}, "channels.keep must be a number above 0 and ≤ 1; found 1.1"),
        ({"keep": True}, "channels.keep must be a number above 0 and ≤ 1; found True"),
        ({"norm": 3}, "channels.norm must be 1 or 2; found 3"),
        ({"round_to": 0}, "channels.round_to must be a whole number ≥ 1; found 0"),
        ({"whole": ["8"]}, "channels.whole: known: 0, 1, 2"),
        ({"keep": 0.01}, "Sequential has no channels that can be removed at keep=0.01"),
        ({"input_shape": [5]}, "channels: Sequential can't be pruned by channels: mat1 and mat2"),
    ],
)
def test_bad_values_are_refused(changes, said):
    with pytest.raises(TutelageError, match=said):
        FewerChannels(**{"input_shape": [4]} | changes).of(perceptron(8))


def test_networks_that_read_other_fields_are_refused():
    with pytest.raises(TutelageError, match="reads fields by name can't be pruned by channels"):
        Tapped(perceptron(8), reads={"input": "input"}, channels=FewerChannels([4]))
