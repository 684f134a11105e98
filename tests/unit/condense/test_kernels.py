"""Kernels of wide networks: against networks of finite width, a direct solution, and finite differences."""

import math

import pytest
import torch
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F

from tutelage.condense.kernels import Convolutional, FullyConnected, arc_cosine, regress
from tutelage.errors import TutelageError

W, B = 2.0, 0.3


def images(count, *shape, seed=0):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Scaled(torch.nn.Module):
    """A layer in the parameterisation of the kernel: weights N(0, 1), scaled by √(σ_w² / fan-in), biases by σ_b."""

    def __init__(self, *shape):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(*shape, dtype=torch.float64))
        self.bias = torch.nn.Parameter(torch.randn(shape[0], dtype=torch.float64))

    def forward(self, x):
        weight, bias = self.weight * math.sqrt(W / self.weight[0].numel()), self.bias * math.sqrt(B)
        return F.conv2d(x, weight, bias, padding=1) if self.weight.ndim == 4 else F.linear(x, weight, bias)


def tangent(make, x, draws):
    """The mean of J·Jᵀ of networks ``make`` draws."""
    found = []
    for draw in range(draws):
        torch.manual_seed(draw)
        net = make()
        parameters = dict(net.named_parameters())
        one = lambda own, image, net=net: functional_call(net, own, (image[None],))[0, 0]  # noqa: E731
        jacobian = vmap(jacrev(one), (None, 0))(parameters, x)
        flat = torch.cat([part.flatten(1) for part in jacobian.values()], 1)
        found.append(flat @ flat.T)
    return torch.stack(found).mean(0)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_wide_perceptron_has_this_kernel(depth):
    x, width = images(4, 6), 400
    sizes = [6, *[width] * depth]

    def make():
        hidden = [layer for i in range(depth) for layer in (Scaled(width, sizes[i]), torch.nn.ReLU())]
        return torch.nn.Sequential(*hidden, Scaled(1, width))

    expected = tangent(make, x, 12)
    torch.testing.assert_close(
        FullyConnected(depth, W, B)(x, x), expected, rtol=0.05, atol=0.05 * expected.max().item()
    )


def test_a_wide_convolutional_network_has_this_kernel():
    x, width = images(3, 2, 4, 5), 120

    def make():
        layers = (Scaled(width, 2, 3, 3), torch.nn.ReLU(), Scaled(width, width, 3, 3), torch.nn.ReLU())
        return torch.nn.Sequential(*layers, torch.nn.Flatten(), Scaled(1, width * 20))

    # zero padding: a unit at the edge has fewer inputs, each with the weights' scale of nine
    expected = tangent(make, x, 6)
    torch.testing.assert_close(Convolutional(2, W, B)(x, x), expected, rtol=0.07, atol=0.07 * expected.max().item())


def test_expectations_of_rectified_gaussians():
    covariance = torch.tensor([[1.5, 0.6], [0.6, 0.8]], dtype=torch.float64)
    u, v = (torch.linalg.cholesky(covariance) @ images(2, 2_000_000)).unbind()
    product, slope = arc_cosine(covariance[0, 1], covariance[0, 0], covariance[1, 1])
    assert product.item() == pytest.approx((u.relu() * v.relu()).mean().item(), rel=5e-3)
    assert slope.item() == pytest.approx(((u > 0) & (v > 0)).double().mean().item(), rel=5e-3)
    same, half = arc_cosine(covariance[0, 0], covariance[0, 0], covariance[0, 0])
    assert same.item() == pytest.approx(0.75)
    assert half.item() == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("kernel", [FullyConnected(1), FullyConnected(3), Convolutional(2)], ids=["1", "3", "conv"])
def test_kernels_are_symmetric_positive_and_have_the_derivative_of_finite_differences(kernel):
    x, y = images(3, 1, 3, 4).requires_grad_(), images(2, 1, 3, 4, seed=1)
    torch.testing.assert_close(kernel(x, y), kernel(y, x).T)
    assert torch.linalg.eigvalsh(kernel(x, x)).min() > 0
    assert torch.autograd.gradcheck(lambda one: kernel(one, y), x)
    assert torch.autograd.gradcheck(lambda one: kernel(one, one), x, atol=1e-4)


def test_a_convolution_of_one_pixel_is_a_perceptron_with_a_ninth_of_the_weights():
    x = images(4, 5, 1, 1)
    found = Convolutional(1, 9.0, B)(x, x)
    one, cross = FullyConnected(1, 1.0, B), x.flatten(1) @ x.flatten(1).T / 5 + B
    product, slope = arc_cosine(cross, cross.diag()[:, None], cross.diag()[None])
    torch.testing.assert_close(found, 9 * (product + cross * slope) + B)
    torch.testing.assert_close(one(x, x), product + cross * slope + B)


def test_a_regression_is_the_direct_solution():
    kernel, x, y, q = FullyConnected(1), images(5, 1, 2, 3), images(5, 4), images(7, 1, 2, 3, seed=2)
    own = kernel(x, x)
    expected = kernel(q, x) @ torch.linalg.inv(own + 1e-3 * own.diag().mean() * torch.eye(5)) @ y
    torch.testing.assert_close(regress(kernel, x, y, 1e-3, q), expected)
    torch.testing.assert_close(regress(kernel, x, y, 1e-12, x), y, rtol=1e-6, atol=1e-6)  # no ridge: it interpolates


def test_what_does_not_fit_is_one_sentence():
    with pytest.raises(TutelageError, match=r"kernel\.depth must be a whole number of at least 1; found 0"):
        FullyConnected(0)
    with pytest.raises(TutelageError, match="must be above 0; found -1"):
        Convolutional(1, -1)
