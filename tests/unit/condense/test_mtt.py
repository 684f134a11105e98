"""Trajectory matching: gradients against one graph of all steps, an outer step by hand, memory, and kills."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from tutelage import seeding
from tutelage.condense import experts as experts_module
from tutelage.condense.experts import Experts, file, weights
from tutelage.condense.images import STATE, TrainingSet
from tutelage.condense.mtt import TrajectoryMatching, gradients
from tutelage.data.differentiable import Differentiable
from tutelage.errors import TutelageError

LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


@pytest.fixture(scope="module")
def train():
    chance = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    return TrainingSet(labels[:, None, None, None] + torch.randn(60, 1, 4, 4, generator=chance), labels, 3)


def experts(**options):
    return Experts(**{"count": 2, "epochs": 4, "batch": 10, "width": 3, "depth": 1, "lr": 0.05} | options)


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trajectories")
    experts().train(train, folder)
    return folder


def method(**options):
    small = {"per_class": 2, "steps": 4, "lr": 5.0, "rate_lr": 1e-3, "rate": 0.05, "student_steps": 3, "max_start": 3}
    return TrajectoryMatching(**{"experts": experts()} | small | options)


def flat_grad(net, loss):
    return torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(net.parameters()))])


def test_a_trajectory_is_that_of_plain_sgd(train, trained):
    found = load_file(file(trained, 1))["parameters"].double()
    net = experts().network(train, 0, "condense", "expert", 1).double()
    for epoch in range(5):
        now = torch.cat([one.detach().flatten() for one in net.parameters()])
        torch.testing.assert_close(found[epoch], now, rtol=1e-4, atol=1e-5)
        order = torch.randperm(60, generator=seeding.generator(0, "condense", "expert", 1, epoch))
        for rows in order.split(10):
            slope = flat_grad(net, F.cross_entropy(net(train.images[rows].double()), train.labels[rows]))
            with torch.no_grad():
                places = slope.split([one.numel() for one in net.parameters()])
                for one, part in zip(net.parameters(), places, strict=True):
                    one -= 0.05 * part.view_as(one)
    assert torch.equal(weights(trained, 1, 3)[0].double(), found[3])


def test_experts_that_were_killed_end_in_the_same_bytes(train, trained, tmp_path, monkeypatch):
    write, written = experts_module.write_atomically, []

    def dies(path, content):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, content)

    monkeypatch.setattr(experts_module, "write_atomically", dies)
    with pytest.raises(KeyboardInterrupt):
        experts().train(train, tmp_path)
    monkeypatch.setattr(experts_module, "write_atomically", write)
    stamp = file(tmp_path, 0).stat().st_mtime_ns
    experts().train(train, tmp_path)
    assert file(tmp_path, 0).stat().st_mtime_ns == stamp  # not trained again
    for number in range(2):
        assert file(tmp_path, number).read_bytes() == file(trained, number).read_bytes()
    few = experts(per_class=5, augment=Differentiable()).trajectory(train, 0)
    assert not torch.equal(few[1], weights(trained, 0, 1)[0])
    assert torch.equal(few[0], weights(trained, 0, 0)[0])


def in_one_graph(update, steps, start, target, images, rate):
    images, rate = images.clone().requires_grad_(), rate.clone().requires_grad_()
    theta = start.clone().requires_grad_()
    for number in range(steps):
        theta = update(number, theta, images, rate)
    loss = (theta - target).square().sum() / (start - target).square().sum()
    return loss.item(), *torch.autograd.grad(loss, [images, rate])


@pytest.mark.parametrize(
    "options", [{}, {"batch": 4}, {"batch": 4, "augment": Differentiable()}], ids=["all", "batches", "augmented"]
)
def test_gradients_are_those_of_one_graph_of_all_steps(train, trained, options):
    mtt = method(student_steps=5, **options)
    update = mtt.update(mtt.network(train, 0), LABELS, 7)
    start, target = (one.double() for one in weights(trained, 0, 0, 2))
    images = train.images[train.balanced(2, 0)].double()
    given = (update, 5, start, target, images, torch.tensor(0.1, dtype=torch.float64))
    for found, expected in zip(gradients(*given), in_one_graph(*given), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_batch_has_every_image_once_in_an_epoch(train, monkeypatch):
    mtt, seen = method(batch=4), []
    monkeypatch.setattr(mtt, "apart", lambda images, *_: seen.append(images.flatten(1)[:, 0].long()) or images)
    update = mtt.update(mtt.network(train, 0), LABELS, 7)
    marked = torch.arange(6.0)[:, None, None, None].expand(6, 1, 4, 4)
    count = sum(one.numel() for one in mtt.network(train, 0).parameters())
    for number in range(4):
        update(number, torch.ones(count, requires_grad=True), marked, torch.tensor(0.0))
    assert [len(one) for one in seen] == [4, 2, 4, 2]
    assert all(torch.cat(seen[i : i + 2]).sort().values.tolist() == [*range(6)] for i in (0, 2))


def test_an_outer_step_is_that_by_hand(train, trained, tmp_path):
    mtt = method(steps=2).after(trained)
    first, found = mtt.start(train, 3), mtt.condense(train, 3, tmp_path)
    images, rate, moved = first.images.double(), 0.05, (0.0, 0.0)
    for number in range(2):
        chance = seeding.generator(3, "condense", number, "expert")
        expert, epoch = (int(x) % n for x, n in zip(torch.randint(2**40, (2,), generator=chance), (2, 3), strict=True))
        start, target = (load_file(file(trained, expert))["parameters"][e].double() for e in (epoch, epoch + 2))
        leaf, eta = images.clone().requires_grad_(), torch.tensor(rate, dtype=torch.float64, requires_grad=True)
        theta, net = start.clone().requires_grad_(), mtt.network(train, 0).double()
        for _ in range(3):  # all six images in a step
            parts = iter(theta.split([one.numel() for one in net.parameters()]))
            named = {name: next(parts).view_as(one) for name, one in net.named_parameters()}
            loss = F.cross_entropy(torch.func.functional_call(net, named, (leaf,)), LABELS)
            theta = theta - eta * torch.autograd.grad(loss, theta, create_graph=True)[0]
        loss = ((theta - target) ** 2).sum() / ((start - target) ** 2).sum()
        slopes = torch.autograd.grad(loss, [leaf, eta])
        moved = tuple(0.5 * old + new for old, new in zip(moved, slopes, strict=True))
        images, rate = images - 5 * moved[0], rate - 1e-3 * moved[1].item()
    torch.testing.assert_close(found.images.double(), images, rtol=1e-4, atol=1e-5)
    assert found.rate == pytest.approx(rate, rel=1e-5)
    assert np.isnan(mtt.accuracy(found, train))


class Graph:
    """One for each graph of a step that is in memory."""

    alive = most = 0

    def __init__(self):
        Graph.alive += 1
        Graph.most = max(Graph.most, Graph.alive)

    def __del__(self):
        Graph.alive -= 1


class Marked(torch.autograd.Function):
    """The identity, whose node in the graph owns a :class:`Graph`."""

    @staticmethod
    def forward(ctx, x):
        ctx.graph = Graph()
        return x.view_as(x)

    @staticmethod
    def backward(ctx, slope):
        return slope


def test_the_graph_of_one_step_is_in_memory(train, trained):
    mtt, most = method(), []
    update = mtt.update(mtt.network(train, 0), LABELS, 7)
    start, target = weights(trained, 0, 0, 2)
    images = train.images[train.balanced(2, 0)]
    for run in (gradients, in_one_graph):
        Graph.most = 0
        run(
            lambda i, theta, x, rate: update(i, theta, Marked.apply(x), rate),
            9,
            start,
            target,
            images,
            torch.tensor(0.1),
        )
        most.append(Graph.most)
    assert most == [1, 9]


@pytest.mark.parametrize("augment", [None, Differentiable()])
def test_a_condensation_that_was_stopped_ends_in_the_same_bits(train, trained, tmp_path, augment):
    options = {"augment": augment, "save_every": 2, "batch": 4}
    whole = method(**options).after(trained).condense(train, 1, tmp_path / "whole")
    method(**options | {"steps": 2}).after(trained).condense(train, 1, tmp_path / "stopped")
    assert torch.load(tmp_path / "stopped" / STATE, weights_only=True)["step"] == 2
    again = method(**options).after(trained).condense(train, 1, tmp_path / "stopped")
    assert torch.equal(whole.images, again.images)
    assert whole.rate == again.rate != 0.05


@pytest.mark.parametrize(("share", "warned"), [(1.0, False), (0.01, True)])
def test_a_rate_that_fell_far_is_warned_of(train, trained, tmp_path, caplog, monkeypatch, share, warned):
    monkeypatch.setattr("tutelage.condense.mtt.repeated", lambda tensors, *others: tensors[1].mul_(share))
    assert method().after(trained).condense(train, 1, tmp_path).rate == pytest.approx(0.05 * share)
    assert ("the learned rate fell from 0.05 to 0.0005" in caplog.text) == warned


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_start": 4}, r"max_start=4 and .*expert_epochs=2 lead to epoch 5 of experts that have 4 "),
        ({"rate": 0}, r"condense\.rate must be above 0 .* found 0"),
        ({"student_steps": 0}, r"condense\.student_steps must be a whole number"),
    ],
)
def test_what_does_not_fit_is_one_sentence(options, said):
    with pytest.raises(TutelageError, match=said):
        method(**options)


def test_experts_that_do_not_fit_are_one_sentence(train, trained, tmp_path):
    with pytest.raises(TutelageError, match=r"condense\.experts\.count must be a whole number of at least 1; found 0"):
        experts(count=0)
    with pytest.raises(TutelageError, match="weights of expert 0 are not finite; try a lower"):
        experts(lr=1e30).trajectory(train, 0)
    (tmp_path / "expert-000.safetensors").write_bytes(b"damaged")
    with pytest.raises(TutelageError, match="safetensors is no file of a trajectory"):
        weights(tmp_path, 0, 1)
    with pytest.raises(TutelageError, match=r"the learned rate of step \d is -.*; try a lower condense\.rate_lr"):
        method(rate_lr=1e3).after(trained).condense(train, 1, tmp_path / "rate")
    start = load_file(file(trained, 0))["parameters"]
    save_file({"parameters": start[[0, 0, 0, 0, 0]]}, file(tmp_path, 0))
    with pytest.raises(TutelageError, match="the loss of step 0 is inf"):  # an expert that has not moved
        method(experts=experts(count=1)).after(tmp_path).condense(train, 0, tmp_path)
