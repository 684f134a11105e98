"""Quantised students: rounding by its formula in float64, gradients, limits, ranges, and the plain network."""

import copy

import pytest
import torch
from torch import nn

from tutelage.errors import TutelageError
from tutelage.models.lenet import LeNet5
from tutelage.models.quantised.ranges import MovingRange
from tutelage.models.quantised.schemes import Bucketed, Integers, Points
from tutelage.models.quantised.weights import Buckets, LearnedPoints, PerChannel
from tutelage.models.resnet import ResNet
from tutelage.models.tapped import Tapped

SHAPE = [1, 16, 16]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def lenet() -> LeNet5:
    return LeNet5(SHAPE, 5, [2, 3, 8, 6])


SCHEMES = {
    "int8": Integers(8),
    "int4": Integers(4),
    "weights": Integers(4, None),
    "buckets": Bucketed(3, 16),
    "points": Points(3),
}


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 2, 2)])
def test_channels_are_rounded_by_the_formula(bits, shape):
    weight = torch.randn(shape)
    weight[1] = 0
    w, most = weight.double(), 2 ** (bits - 1) - 1
    expected = torch.zeros_like(w)
    for c in range(len(w)):
        scale = float(w[c].abs().max() / most)
        if scale:
            expected[c] = scale * torch.clamp(torch.round(w[c] / scale), -most - 1, most)
    torch.testing.assert_close(PerChannel(bits)(weight).double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("bits", "size"), [(1, 4), (2, 7), (4, 256)])
def test_buckets_are_rounded_by_the_formula(bits, size):
    weight = torch.randn(5, 9)
    weight.view(-1)[:4] = 0.3  # of one bucket where it has four
    flat, s = weight.double().flatten().tolist(), 2**bits
    expected = []
    for at in range(0, len(flat), size):
        bucket = flat[at : at + size]
        low, high = min(bucket), max(bucket)
        for w in bucket:
            share = (w - low) / (high - low) if high > low else 0.0
            expected.append(low + (high - low) * round(share * (s - 1)) / (s - 1))  # Python rounds ties to even, too
    found = Buckets(bits, size)(weight)
    torch.testing.assert_close(found.double().flatten(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)
    assert all(len(part.unique()) <= s for part in found.flatten().split(size))


@pytest.mark.parametrize("rounder", [PerChannel(4), Buckets(4, 16)], ids=["channels", "buckets"])
def test_rounding_twice_is_rounding_once_and_gradients_pass_straight_through(rounder):
    weight = torch.randn(6, 10, requires_grad=True)
    once = rounder(weight)
    torch.testing.assert_close(rounder(once), once, rtol=0, atol=1e-6)
    gradient = torch.randn(6, 10)
    once.backward(gradient)
    assert torch.equal(weight.grad, gradient)


def test_many_bits_are_the_weights():
    weight = torch.randn(6, 40)
    torch.testing.assert_close(PerChannel(16)(weight), weight, rtol=0, atol=1e-4)
    torch.testing.assert_close(Buckets(16, 16)(weight), weight, rtol=0, atol=1e-4)
    points = LearnedPoints(8, weight)
    torch.testing.assert_close(points(weight).sort().values, weight.sort().values, rtol=0, atol=0.3)
    few = torch.randn(16)
    torch.testing.assert_close(LearnedPoints(4, few)(few), few, rtol=0, atol=1e-6)


def test_half_precision_rounds_to_the_same_codes():
    weight = torch.randn(4, 8).bfloat16()
    assert torch.equal(PerChannel(4)(weight), PerChannel(4)(weight.float()).bfloat16())
    span = MovingRange(8, 0.1)
    assert span(weight).dtype == torch.bfloat16


def test_points_start_at_quantiles_and_learn_the_sum_of_their_weights_gradients():
    weight = torch.randn(7, 11)
    rounder = LearnedPoints(2, weight)
    expected = torch.quantile(weight.double().flatten(), torch.arange(4, dtype=torch.float64) / 3)
    torch.testing.assert_close(rounder.points.double(), expected, rtol=0, atol=1e-6)
    with torch.no_grad():
        rounder.points.copy_(torch.tensor([0.5, -1.0, 0.0, 1.5]))  # learned points need not be in order
    nearest = (weight[..., None] - rounder.points).abs().argmin(-1)
    found, gradient = rounder(weight), torch.randn(7, 11)
    assert torch.equal(found, rounder.points[nearest])
    found.backward(gradient)
    sums = torch.stack([gradient.double()[nearest == j].sum() for j in range(4)])
    torch.testing.assert_close(rounder.points.grad.double(), sums, rtol=0, atol=1e-5)


def test_ranges_follow_batches_and_round_by_the_formula():
    span, low, high = MovingRange(4, 0.25), 0.0, 0.0
    for number in range(3):
        x = torch.randn(20) + number
        found = span(x)
        least, most = float(x.min()), float(x.max())
        low, high = (least, most) if not number else (low + 0.25 * (least - low), high + 0.25 * (most - high))
        scale = (max(high, 0) - min(low, 0)) / 15
        zero = round(-min(low, 0) / scale)
        codes = torch.clamp(torch.round(x.double() / scale) + zero, 0, 15)
        torch.testing.assert_close(found.double(), scale * (codes - zero), rtol=0, atol=1e-5)
    assert float(span.low) == pytest.approx(low)
    x = torch.tensor([100.0, 0.1], requires_grad=True)
    before = dict(span.state_dict())
    span.frozen = True
    span(x).sum().backward()
    assert x.grad.tolist() == [0, 1]  # nothing beyond the range
    span.frozen = False
    span.eval()(x)
    assert all(torch.equal(value, before[name]) for name, value in span.state_dict().items())


def test_without_a_range_an_input_stays_as_it_is():
    x = torch.randn(5)
    assert torch.equal(MovingRange(8, 0.1).eval()(x), x)


@pytest.mark.parametrize("name", SCHEMES)
def test_the_network_computes_with_rounded_weights_and_all_that_learns_has_a_gradient(name):
    net = SCHEMES[name].of(lenet().to(memory_format=torch.channels_last))  # as jobs lay networks out
    x = torch.randn(6, *SHAPE)
    net.train()(x).square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None] == []
    net.eval()
    plain = net.plain().eval()
    assert type(plain) is LeNet5
    for path, layer in plain.named_modules():
        if path in net.inputs:
            layer.register_forward_pre_hook(lambda _, inputs, span=net.inputs[path]: (span(inputs[0]),))
    assert torch.equal(plain(x), net(x))  # without rounded inputs it is the plain network to the bit
    assert bool(net.inputs) == (name in ("int8", "int4"))
    again = SCHEMES[name].of(lenet().to(memory_format=torch.channels_last)).eval()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(x), net(x))
    assert torch.equal(copy.deepcopy(net)(x), net(x))


def test_float_is_the_limit_of_many_bits():
    net, x = lenet().eval(), torch.randn(6, *SHAPE)
    rounded = Integers(16, 16).of(copy.deepcopy(net)).train()
    rounded(x)  # sees the ranges
    torch.testing.assert_close(rounded.eval()(x), net(x), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(Bucketed(16).of(copy.deepcopy(net))(x), net(x), rtol=1e-3, atol=1e-3)


def test_taps_reads_and_hooks_are_those_of_the_plain_network():
    taps = {"stage1": "stage1", "last": "-1", "classifier": "classifier"}
    net = Tapped(lenet(), taps, quantised=Integers(), classes=[4, 0])
    net.register_taps(["stage1", "classifier.weight", "last"])
    found = net.eval()(torch.randn(3, *SHAPE))
    assert found["logits"].shape == (3, 2)
    assert found["stage1"].shape[:2] == (3, 2)
    assert torch.equal(found["last"][:, [4, 0]], found["logits"])
    assert found["classifier.weight"] is net.net.student.classifier.weight


def test_frozen_statistics_stay_and_learning_goes_on():
    net = Integers().of(ResNet(1, 5, [1, 1, 1], (4, 8, 16), 4)).train()
    net(torch.randn(8, *SHAPE))
    net.freeze(True)
    net.eval().train()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    net(2 * torch.randn(8, *SHAPE)).sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    assert net.student.training
    net.freeze(False)
    net(2 * torch.randn(8, *SHAPE))
    assert not any(torch.equal(span.high, before[f"ranges.{i}.high"]) for i, span in enumerate(net.ranges))


def test_learned_points_start_from_the_weights_that_the_student_is_given():
    net = Points(2).of(lenet())
    with torch.no_grad():
        net.student.classifier.weight.mul_(3)
    net.on_new_weights()
    rounder = net.weights["classifier.weight"]
    assert rounder.points.max().item() == net.student.classifier.weight.max().item()
    assert not net.student.classifier.weight.requires_grad
    assert net.student.classifier.bias.requires_grad


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(self.one(x))


def test_layers_that_share_a_weight_share_its_rounding():
    net, x = Integers(3, None).of(Shared()), torch.randn(2, 4)
    assert list(net.weights) == ["one.weight"]
    w = PerChannel(3)(net.student.one.weight)
    expected = (x @ w.T + net.student.one.bias) @ w.T + net.student.two.bias
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Integers(1), "quantised.bits must be an integer from 2 to 16; found 1"),
        (lambda: Integers(8, 40), "quantised.activations must be an integer from 2 to 16; found 40"),
        (lambda: Integers(momentum=0), "quantised.momentum must be above 0 and at most 1; found 0"),
        (lambda: Bucketed(0), "quantised.bits must be an integer from 1 to 16; found 0"),
        (lambda: Bucketed(size=1), "quantised.size must be at least 2; found 1"),
        (lambda: Points(9), "quantised.bits must be an integer from 1 to 8; found 9"),
        (lambda: Integers().of(nn.Sequential(nn.Flatten())), "no linear layer and no convolution in Sequential"),
        (lambda: Points().of(nn.Sequential(nn.ReLU())), "no linear layer and no convolution in Sequential"),
        (lambda: Integers().of(nn.Sequential(nn.MultiheadAttention(4, 2))), "quantised.activations=null"),
    ],
)
def test_bad_input_has_a_sentence(make, said):
    with pytest.raises(TutelageError, match=said):
        make()
