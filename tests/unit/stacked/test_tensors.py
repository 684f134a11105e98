"""Tensors with a leading dimension, and leaves that share their memory."""

import torch
from torch import nn

from tutelage.stacked.tensors import joined, parts_of, stacked, state_of


def test_a_stacked_module_holds_every_one_and_gives_it_back():
    modules = [nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)) for _ in range(4)]
    for i, module in enumerate(modules):
        module[1].running_mean.fill_(i)
    whole = stacked(modules)
    assert whole[0].weight.shape == (4, 3, 2)
    assert whole[1].num_batches_tracked.shape == (4,)
    for i, module in enumerate(modules):
        for name, tensor in state_of(whole, i).items():
            assert torch.equal(tensor, module.state_dict()[name]), name


def test_parts_are_the_memory_of_the_whole_and_get_its_gradient():
    whole = torch.arange(12.0).view(6, 2)
    parts = parts_of(whole, [2, 1, 3])
    factor = torch.randn(6, 2)
    (joined(whole, parts) * factor).sum().backward()
    assert torch.equal(torch.cat([part.grad for part in parts]), factor)
    torch.optim.SGD(parts, lr=1.0).step()
    assert torch.equal(whole, torch.arange(12.0).view(6, 2) - factor), "a step of the parts is one of the whole"


def test_one_part_is_the_whole_itself():
    whole = torch.zeros(3, 2)
    [part] = parts_of(whole, [3])
    assert joined(whole, [part]) is part
