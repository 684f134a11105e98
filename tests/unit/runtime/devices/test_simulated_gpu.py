"""The simulated GPU refuses what a real one refuses, and computes what the CPU computes."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from simulated_gpu import simulated_gpus
from torch import nn


@pytest.fixture
def gpus():
    with simulated_gpus(2):
        yield


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3)
    )


def steps(model: nn.Module, device: str, count: int = 3) -> dict[str, torch.Tensor]:
    """The state after so many steps of Adam."""
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        torch.default_generator.manual_seed(7)
        if device != "cpu":
            torch.cuda.default_generators[torch.device(device).index].manual_seed(7)
        images, label = torch.rand(8, 1, 8, 8, generator=generator), torch.arange(8) % 3
        optimizer.zero_grad()
        F.cross_entropy(model(images.to(device)), label.to(device)).backward()
        optimizer.step()
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_it_computes_what_the_cpu_computes(gpus, device):
    expected, found = steps(net(), "cpu"), steps(net(), device)
    for name, tensor in expected.items():
        assert type(found[name]) is torch.Tensor
        assert torch.equal(found[name], tensor), name


def test_what_is_made_there_is_there(gpus):
    x = torch.rand(3, device="cuda")
    made = [
        x, x.clone(), x + 1, 2.0 * x, x[1:], torch.zeros_like(x), x.new_ones(2), x.new_tensor([1.0]), x.half(),
        torch.arange(3, device=x.device), torch.tensor([1, 2], device="cuda:0"), torch.full((2,), 1.0, device=0),
        torch.rand(2).cuda(), torch.rand(2).to("cuda"), torch.rand(2).to(x), x.to(torch.float64), nn.Parameter(x),
        copy.deepcopy(nn.Parameter(x)), torch.stack([x, x]), x.topk(2).indices,
    ]  # fmt: skip
    assert {str(one.device) for one in made} == {"cuda:0"}
    assert all(one.is_cuda for one in made)
    torch.cuda.set_device(1)
    assert str(torch.zeros(2, device="cuda").device) == "cuda:1"
    with torch.device("cuda:0"):
        assert str(nn.Linear(2, 2).weight.device) == "cuda:0"
    assert x.cpu().device.type == "cpu"
    assert x.tolist() == x.cpu().tolist()
    assert float(x.sum()) == float(x.cpu().sum())


@pytest.mark.parametrize(
    "mix",
    [
        lambda here, there: here + there,
        lambda here, there: there + here,
        lambda here, there: here @ there,
        lambda here, there: torch.stack([here, there]),
        lambda here, there: torch.stack([here.sum(), there.sum()]),
        lambda here, there: torch.where(here > 0, here, there),
        lambda here, there: here.index_select(0, there.long()),
        lambda here, there: there[here.long()],
        lambda here, there: here[there.long()],
        lambda here, there: here.add_(there),
        lambda here, there: torch.searchsorted(here, there),
        lambda here, there: torch._foreach_add_([here], [there]),
        lambda here, there: F.cross_entropy(here[None], there[:1].long()),
        lambda here, there: nn.Linear(4, 2).to(here.device)(there),
    ],
)
@pytest.mark.parametrize("other", ["cpu", "cuda:1"])
def test_two_devices_do_not_mix(gpus, mix, other):
    here, there = torch.zeros(4, device="cuda:0"), torch.zeros(4, device=other)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device, but found"):
        mix(here, there)
    mix(here.detach().clone(), there.to("cuda:0"))


def test_a_number_on_the_host_goes_with_others(gpus):
    x = torch.ones(3, device="cuda")
    assert (x * torch.tensor(2.0) / torch.tensor(4)).tolist() == [0.5] * 3
    assert x.lerp_(torch.zeros(3, device="cuda"), torch.tensor(0.5)).tolist() == [0.5] * 3


@pytest.mark.parametrize("read", [lambda x: x.numpy(), lambda x: x.__array__(), lambda x: x.detach().numpy()])
def test_numpy_sees_the_host_alone(gpus, read):
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        read(torch.zeros(2, device="cuda"))


def test_a_file_is_read_on_the_host(gpus):
    buffer = io.BytesIO()
    torch.save({"x": nn.Linear(2, 2).cuda().state_dict()}, buffer)
    buffer.seek(0)
    found = torch.load(buffer, weights_only=True)["x"]["weight"]
    assert type(found) is torch.Tensor


def test_a_parameter_that_moves_stays_the_same_object(gpus):
    model = nn.Linear(2, 2)
    before = model.weight
    for device in ("cuda:0", "cuda:1", "cpu", "cuda"):
        assert model.to(device).weight is before
        model(torch.rand(1, 2, device=device)).sum().backward()
        assert model.weight.grad.device == model.weight.device


def test_chance_comes_from_the_devices_own_generator(gpus):
    torch.cuda.default_generators[1].manual_seed(5)
    host = torch.default_generator.get_state()
    first = torch.rand(3, device="cuda:1")
    torch.cuda.default_generators[1].manual_seed(5)
    assert torch.equal(torch.rand(3, device="cuda:1").cpu(), first.cpu())
    assert torch.equal(torch.default_generator.get_state(), host)


def test_nothing_of_it_stays():
    with simulated_gpus():
        pass
    assert not torch.zeros(1).is_cuda
    assert torch.cuda.device_count.__module__ == "torch.cuda"
