"""Layers for many networks: the products and the chance of each are those that it has alone."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from tutelage.models.cnn import CNN
from tutelage.models.mlp import MLP
from tutelage.seeding import reseed
from tutelage.stacked.layers import DropoutMasks

CPU = torch.device("cpu")


def networks(count, rates, **options):
    return [MLP([1, 2, 3], [5, 4], 3, dropout=rates[i], **options).double() for i in range(count)]


@pytest.mark.parametrize("seeds", [2, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_of_many_is_each_of_them(seeds, bias):
    cells, layers = 3, [nn.Sequential(nn.Linear(6, 4, bias=bias), nn.Tanh(), nn.Linear(4, 2)) for _ in range(3 * seeds)]
    layers = [layer.double() for layer in layers]
    x = torch.randn(seeds, 5, 6, dtype=torch.float64, requires_grad=True)
    state, _ = stack_module_state(layers)
    template = layers[0]
    DropoutMasks(layers, range(len(layers)), x[0]).install(template)
    split = {name: p.unflatten(0, (seeds, cells)) for name, p in state.items()}
    y = vmap(vmap(lambda s, x: functional_call(template, s, (x,)), in_dims=(0, None)))(split, x)
    own = [type(layer[0]).__base__ for layer in layers]
    assert own[0] is nn.Linear  # the first is the template, whose layers are of this package now
    expected = torch.stack([layer(x[i // cells]) for i, layer in enumerate(layers)]).unflatten(0, (seeds, cells))
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=0)
    found = torch.autograd.grad(y.square().sum(), [x, *state.values()])
    alone = torch.autograd.grad(expected.square().sum(), [x, *(p for layer in layers for p in layer.parameters())])
    torch.testing.assert_close(found[0], alone[0], rtol=1e-12, atol=1e-14)
    by_layer = zip(*[iter(alone[1:])] * len(state), strict=True)
    for stacked, own in zip(found[1:], zip(*by_layer, strict=True), strict=True):
        torch.testing.assert_close(stacked, torch.stack(own), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (partial(MLP, [1, 4, 4], [7, 6], 3, input_dropout=0.1), [1, 4, 4]),
        (partial(CNN, [1, 8, 8], 3), [1, 8, 8]),
    ],
)
def test_every_job_draws_the_masks_that_it_would_draw_alone(make, shape, dtype):
    rates, seeds = [0.2, 0.5, 0.2, 0.0], [3, 3, 8, 8]
    nets = [make(dropout=rate).to(dtype) for rate in rates]
    x = torch.randn(16, *shape, dtype=dtype)
    chance = DropoutMasks(nets, seeds, x[:2])
    drawn = chance.draw(epoch=4, batch=7, rows=len(x), like=x)
    masks = chance.install(template := make(dropout=0.2).to(dtype))
    for i, net in enumerate(nets):
        reseed(CPU, seeds[i], "step", 4, 7, 0)
        expected = net(x)
        masks[:] = [mask[i] for mask in drawn]
        torch.testing.assert_close(functional_call(template, net.state_dict(), (x,)), expected)
        assert not masks, "every call of a dropout layer takes one mask"


def test_without_dropout_nothing_is_drawn():
    nets = networks(2, [0.0, 0.0])
    before = torch.get_rng_state()
    assert DropoutMasks(nets, [0, 1], torch.zeros(2, 1, 2, 3).double()).draw(0, 0, 4, torch.zeros(())) == []
    assert torch.equal(before, torch.get_rng_state())


def test_in_eval_mode_nothing_is_dropped():
    nets = networks(2, [0.5, 0.9])
    x = torch.randn(4, 1, 2, 3, dtype=torch.float64)
    expected = nets[0].eval()(x)
    DropoutMasks(nets, [0, 1], x).install(nets[0])
    torch.testing.assert_close(nets[0](x), expected)
