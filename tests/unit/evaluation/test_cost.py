import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutelage.evaluation import cost
from tutelage.evaluation.cost import multiply_adds, parameters

L, D = 10, 64  # positions and width of the attention below
ATTENTION = 4 * L * D * D + 2 * L * L * D


class Called(nn.Module):
    def __init__(self, forward, **children):
        super().__init__()
        self.call = forward
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, x):
        return self.call(self, x)


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))


def test_parameters_of_an_mlp():
    assert parameters(mlp()) == 784 * 32 + 32 + 32 * 10 + 10


def test_frozen_parameters_count_shared_ones_once_and_buffers_not():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    net[0].requires_grad_(False)
    assert parameters(net) == 4 * 4 + 4 + (4 + 4) + 4


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (mlp(), (1, 28, 28), 784 * 32 + 32 * 10),
        (nn.Linear(16, 3, bias=False), (5, 16), 5 * 16 * 3),
        (nn.Conv2d(3, 8, 5, stride=2, padding=2), (3, 12, 10), 6 * 5 * 8 * 3 * 25),
        (nn.Conv2d(8, 16, 3, padding=1, groups=4), (8, 10, 10), 100 * 16 * 2 * 9),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), (8, 10, 10), 100 * 8 * 9),
        (nn.Conv2d(8, 8, 3, dilation=2), (8, 10, 10), 36 * 8 * 8 * 9),
        (nn.Conv1d(8, 16, 3, padding=1), (8, 10), 10 * 16 * 8 * 3),
        (nn.ConvTranspose2d(8, 4, 3, stride=2), (8, 5, 5), 25 * 8 * 4 * 9),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)), (3, 8, 8), 0),
    ],
)
def test_multiply_adds_by_hand(module, shape, expected):
    assert multiply_adds(module, shape) == expected
    assert multiply_adds(module, shape) == expected


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (Called(lambda _, x: F.scaled_dot_product_attention(x, x, x)), (4, L, 16), 2 * L * L * D),
        (
            Called(
                lambda m, x: m.mha(x, x, x, need_weights=False)[0], mha=nn.MultiheadAttention(D, 4, batch_first=True)
            ),
            (L, D),
            ATTENTION,
        ),
        (
            nn.TransformerEncoder(nn.TransformerEncoderLayer(D, 4, 128, batch_first=True), 2),
            (L, D),
            2 * (ATTENTION + 2 * L * D * 128),
        ),
        (nn.LSTM(16, 32, batch_first=True), (7, 16), 7 * 4 * 32 * (16 + 32)),
        (nn.LSTM(16, 32, batch_first=True, bidirectional=True), (7, 16), 2 * 7 * 4 * 32 * (16 + 32)),
        (nn.GRU(16, 32, batch_first=True), (7, 16), 7 * 3 * 32 * (16 + 32)),
        (Called(lambda m, x: x @ m.lin.weight[0], lin=nn.Linear(16, 3)), (16,), 16),
        (Called(lambda _, x: torch.dot(x[0], x[0])), (16,), 16),
        (Called(lambda _, x: torch.einsum("bij,bkj->bik", x, x)), (7, 16), 7 * 7 * 16),
    ],
)
def test_products_that_the_counter_alone_takes_for_nothing(module, shape, expected):
    assert multiply_adds(module, shape) == expected


def test_the_published_count_of_resnet18():
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        net = models.resnet18()
    assert multiply_adds(net, (3, 224, 224)) / 1e9 == pytest.approx(1.814, abs=5e-4)  # torchvision's own table
    assert parameters(net) == 11_689_512


def test_the_module_stays_as_it_was():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(72, 3)).train()
    net[1].eval()
    net(torch.randn(4, 1, 8, 8)).sum().backward()
    net[0].weight.requires_grad_(False)
    handle = net[4].register_forward_hook(lambda *_: None)
    tensors = {name: (t, t.clone()) for name, t in net.state_dict(keep_vars=True).items()}
    grads = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    chance = torch.get_rng_state()

    assert multiply_adds(net, (1, 8, 8)) == 36 * 2 * 9 + 72 * 3

    assert [m.training for m in net] == [True, False, True, True, True]
    for name, t in net.state_dict(keep_vars=True).items():
        assert t is tensors[name][0]
        assert torch.equal(t, tensors[name][1])
    assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), grads, strict=True))
    assert [p.requires_grad for p in net.parameters()] == [False, True, True, True, True, True]
    assert torch.equal(torch.get_rng_state(), chance)
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net] == [0, 0, 0, 0, 1]
    handle.remove()
    assert net(torch.randn(2, 1, 8, 8)).shape == (2, 3)


def test_the_precision_of_the_module_is_taken():
    assert multiply_adds(mlp().bfloat16(), (784,)) == multiply_adds(mlp().double(), (784,)) == 25_408


def test_a_training_module_is_counted_in_eval_mode():
    """A batch norm refuses to train on one example, and a head for training alone is no cost of the network."""

    def forward(net, x):
        return net.body(x) if not net.training else net.head(net.body(x))

    body = nn.Sequential(nn.Linear(8, 5), nn.BatchNorm1d(5))
    assert multiply_adds(Called(forward, body=body, head=nn.Linear(5, 7)).train(), (8,)) == 8 * 5


def test_a_shape_that_does_not_fit_has_no_count():
    assert multiply_adds(mlp(), (783,)) is None


@pytest.mark.parametrize(
    "forward", [lambda _, x: x * x.sum().item(), lambda _, x: x if x.sum() > 0 else -x, lambda _, x: x.numpy()]
)
def test_a_module_that_needs_values_has_no_count_one_warning_and_its_modes_back(forward, caplog, monkeypatch):
    monkeypatch.setattr(cost, "_uncounted", set())
    net = Called(forward).train()
    assert multiply_adds(net, (4,)) is None
    assert multiply_adds(net, (4,)) is None
    assert net.training
    [said] = [record.getMessage() for record in caplog.records]
    assert "multiply-adds of Called are not known: it does not run on shapes alone" in said


def test_a_sum_with_an_unknown_part_is_unknown():
    assert cost.total([1, 2]) == 3
    assert cost.total([1, None]) is None
