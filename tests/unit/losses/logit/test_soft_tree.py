"""The losses of a soft tree against loops over its leaves, written from the paper in plain Python."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.logit.soft_target import SoftTarget
from tutelage.losses.logit.soft_tree import Balance, LeafLabels, LeafSoftTarget
from tutelage.models.soft_tree import Paths

DEPTH, ROWS, CLASSES = 3, 6, 4
LEAVES = 2**DEPTH


def right(seed: int = 0, rows: int = ROWS, depth: int = DEPTH) -> Tensor:
    """[B, 2^depth − 1]: the activation that sends an example to the right, of every inner node breadth first."""
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(rows, 2**depth - 1, generator=g, dtype=torch.float64)


def paths(seed: int = 0, rows: int = ROWS, depth: int = DEPTH) -> Tensor:
    return Paths(1.0)(right(seed, rows, depth))


def leaves(seed: int = 1) -> Tensor:
    return 2 * torch.randn(LEAVES, CLASSES, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LABEL = torch.tensor([0, 1, 2, 3, 3, 0])
TEACHER = 3 * torch.randn(ROWS, CLASSES, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def softmax(z: list[float], temperature: float = 1.0) -> list[float]:
    e = [math.exp(value / temperature) for value in z]
    return [value / sum(e) for value in e]


def reached(activation: list[float], node: int = 0, probability: float = 1.0) -> Iterator[tuple[int, float]]:
    """(node, P) of every node below ``node``, itself included; leaves have the numbers from 2^depth − 1 on."""
    yield node, probability
    if node < len(activation):
        p = sigmoid(activation[node])
        yield from reached(activation, 2 * node + 1, probability * (1 - p))
        yield from reached(activation, 2 * node + 2, probability * p)


def by_leaves(targets: list[list[float]], temperature: float = 1.0) -> float:
    """mean_b Σ_l P^l Σ_k −T_k log Q^l_k."""
    total = 0.0
    for activation, target in zip(right().tolist(), targets, strict=True):
        for node, probability in reached(activation):
            if node >= LEAVES - 1:
                q = softmax(leaves()[node - LEAVES + 1].tolist(), temperature)
                total -= probability * sum(t * math.log(one) for t, one in zip(target, q, strict=True))
    return total / ROWS


def one_hot(smoothing: float = 0.0) -> list[list[float]]:
    return [[(1 - smoothing) * (y == c) + smoothing / CLASSES for c in range(CLASSES)] for y in LABEL.tolist()]


def alphas(activations: Tensor) -> list[float]:
    """α of every inner node over a batch: Σ P^i p_i / Σ P^i."""
    rows = [(activation, dict(reached(activation))) for activation in activations.tolist()]
    nodes = range(activations.shape[1])
    return [
        sum(p[i] * sigmoid(activation[i]) for activation, p in rows) / sum(p[i] for _, p in rows) for i in nodes
    ]  # fmt: skip


def penalty(shares: list[float]) -> float:
    """−Σ_i 2^−d [½ log α + ½ log(1 − α)]; node i is at depth ⌊log2(i + 1)⌋."""
    return -sum(
        2.0 ** -math.floor(math.log2(i + 1)) * (0.5 * math.log(a) + 0.5 * math.log(1 - a)) for i, a in enumerate(shares)
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_labels_are_charged_leaf_by_leaf(smoothing: float) -> None:
    found = LeafLabels(smoothing).double()(paths(), leaves(), LABEL)
    assert found.item() == pytest.approx(by_leaves(one_hot(smoothing)), rel=1e-7)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_targets_are_charged_leaf_by_leaf(temperature: float) -> None:
    found = LeafSoftTarget(temperature)(paths(), leaves(), TEACHER)
    targets = [softmax(z, temperature) for z in TEACHER.tolist()]
    assert found.item() == pytest.approx(temperature**2 * by_leaves(targets, temperature), rel=1e-12)


def test_labels_and_teacher_make_the_composite_target() -> None:
    mixed = [
        [0.3 * hard + 0.7 * soft for hard, soft in zip(y, softmax(z), strict=True)]
        for y, z in zip(one_hot(), TEACHER.tolist(), strict=True)
    ]
    parts = LeafLabels()(paths(), leaves(), LABEL), LeafSoftTarget()(paths(), leaves(), TEACHER)
    assert 0.3 * parts[0].item() + 0.7 * parts[1].item() == pytest.approx(by_leaves(mixed), rel=1e-12)


def test_it_is_never_less_than_the_loss_of_the_mixture() -> None:
    mixture = (paths().exp() @ leaves().softmax(1)).log()
    charged = LeafLabels()(paths(), leaves(), LABEL)
    assert charged > F.nll_loss(mixture, LABEL)
    alike = leaves()[:1].expand(LEAVES, -1)  # where all leaves agree the paths do not matter
    assert LeafLabels()(paths(), alike, LABEL).item() == pytest.approx(
        F.cross_entropy(alike[:1].expand(ROWS, -1), LABEL).item(), rel=1e-12
    )


def test_one_leaf_is_hintons_soft_target() -> None:
    temperature, leaf = 3.0, leaves()[:1].requires_grad_()
    certain = torch.zeros(ROWS, 1, dtype=torch.float64)
    ours = LeafSoftTarget(temperature)(certain, leaf, TEACHER)
    hintons = SoftTarget(temperature)(leaf.expand(ROWS, -1), TEACHER)
    q = (TEACHER / temperature).softmax(1)
    entropy = -(q * q.log()).sum(1).mean()
    assert ours.item() == pytest.approx((hintons + temperature**2 * entropy).item(), rel=1e-12)
    gradients = [torch.autograd.grad(loss, leaf)[0] for loss in (ours, hintons)]
    torch.testing.assert_close(*gradients)


def test_depth_1_with_certain_leaves_is_logistic_regression() -> None:
    """Leaves that say 0 (left) and 1 (right) with 1 − e^−m: m times logistic regression's error rate, softened."""
    activation = right(depth=1).requires_grad_()
    sure = 40.0 * torch.eye(2, dtype=torch.float64)
    label = (LABEL > 1).long()
    found = LeafLabels()(Paths(1.0)(activation), sure, label)
    wrong = torch.where(label == 1, 1 - activation[:, 0].sigmoid(), activation[:, 0].sigmoid())
    assert found.item() == pytest.approx((40 * wrong).mean().item(), rel=1e-9)


@pytest.mark.parametrize("loss", [LeafLabels(0.2), LeafSoftTarget(2.0)], ids=["labels", "teacher"])
def test_gradients_are_the_finite_differences(loss: nn.Module) -> None:
    target = LABEL if isinstance(loss, LeafLabels) else TEACHER
    inputs = right().requires_grad_(), leaves().requires_grad_()
    assert torch.autograd.gradcheck(lambda z, phi: loss.double()(Paths(1.0)(z), phi, target), inputs)


def test_the_penalty_is_the_papers() -> None:
    found = Balance().eval()(paths())
    assert found.item() == pytest.approx(penalty(alphas(right())), rel=1e-12)


def test_the_penalty_is_least_where_every_node_is_balanced() -> None:
    even = Balance().eval()(torch.full((ROWS, LEAVES), -DEPTH * math.log(2), dtype=torch.float64))
    assert even.item() == pytest.approx(DEPTH * math.log(2), rel=1e-12)  # 2^d nodes at depth d, each 2^−d log 2
    assert Balance().eval()(paths()) > even


def test_the_penalty_averages_over_a_window_that_grows_with_the_depth() -> None:
    window, balance = 3.0, Balance(3.0)
    average: list[float] = []
    for step in range(1, 9):
        batch = alphas(right(step))
        parts = [1 / min(step, window * 2 ** math.floor(math.log2(i + 1))) for i in range(LEAVES - 1)]
        average = batch if step == 1 else [a + w * (b - a) for a, b, w in zip(average, batch, parts, strict=True)]
        assert balance(paths(step)).item() == pytest.approx(penalty(average), rel=1e-6)
    assert parts == pytest.approx([1 / 3, *2 * [1 / 6], *4 * [1 / 8]])  # at step 8 two windows are full
    torch.testing.assert_close(balance.average, torch.tensor([[1 - a, a] for a in average]))
    before = balance.average.clone()
    balance.eval()(paths(9))
    assert torch.equal(balance.average, before)


def test_the_gradient_of_the_penalty_is_that_of_this_batchs_part() -> None:
    balance = Balance(2.0).double()
    balance(paths(1)), balance(paths(2))
    activation = right(3).requires_grad_()

    def once(z: Tensor) -> Tensor:
        result: Tensor = copy.deepcopy(balance)(Paths(1.0)(z))
        return result

    assert torch.autograd.gradcheck(once, activation)
    assert not balance.average.requires_grad


def test_a_branch_that_nothing_takes_is_pulled_back() -> None:
    """σ(−300) is 0 in float32: its logarithm is what is penalised, and still has a gradient."""
    activation = torch.full((ROWS, 3), -300.0, requires_grad=True)
    loss = Balance()(Paths(1.0)(activation))
    loss.backward()
    assert loss.item() == pytest.approx(150 + 150 / 2 + 0.5 * 0.5 * 300, rel=1e-5)
    assert activation.grad.isfinite().all()
    assert (activation.grad[:, 0] < 0).all()


def test_an_interrupted_run_goes_on_as_if_it_had_not_been() -> None:
    whole, first = Balance(), Balance()
    expected = [whole(paths(step)).item() for step in range(4)]
    for step in range(2):
        first(paths(step))
    second = Balance()
    second.load_state_dict(first.state_dict())
    assert [second(paths(step)).item() for step in (2, 3)] == expected[2:]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    given = paths().to(dtype), leaves().to(dtype)
    for loss, target in ((LeafLabels(), LABEL), (LeafSoftTarget(), TEACHER.to(dtype))):
        with torch.autocast("cpu", torch.bfloat16):
            found = loss(*given, target)
        assert found.dtype == torch.float32
        exact = loss(*(x.double() for x in given), target if target is LABEL else target.double())
        assert found.item() == pytest.approx(exact.item(), rel=1e-5)
    found, exact = (Balance().eval()(x).item() for x in (given[0], given[0].double()))
    assert found == pytest.approx(exact, rel=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TutelageError, match=r"LeafLabels: .*\[6, 8\] and \[7, 4\]"):
        LeafLabels()(paths(), leaves()[:7], LABEL)
    with pytest.raises(TutelageError, match=r"LeafLabels: expected integers \[6\]"):
        LeafLabels()(paths(), leaves(), LABEL[:5])
    with pytest.raises(TutelageError, match=r"LeafSoftTarget: expected a teacher of \[6, 4\], found \[6, 3\]"):
        LeafSoftTarget()(paths(), leaves(), TEACHER[:, :3])
    with pytest.raises(TutelageError, match=r"Balance: .*found \[6, 7\]"):
        Balance()(paths()[:, :7])
    with pytest.raises(TutelageError, match=r"Balance\.window"):
        Balance(0.5)
    with pytest.raises(TutelageError, match=r"LeafLabels\.label_smoothing"):
        LeafLabels(1.5)


def rank(index: int, folder: str) -> None:
    """Of two: half of the batch each; the gradients' mean is the whole batch's, and so are value and average."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=index, world_size=2)
    share = Balance()
    for step in range(3):
        activation = right(step).requires_grad_()
        share(Paths(1.0)(activation[3 * index : 3 * index + 3])).backward()
        dist.all_reduce(activation.grad)
        torch.save((activation.grad / 2, share.average), f"{folder}/{step}.{index}.pt")
    dist.destroy_process_group()


@pytest.mark.long
def test_ranks_share_what_goes_where(tmp_path: Path) -> None:
    mp.spawn(rank, (str(tmp_path),), nprocs=2)
    alone = Balance()
    for step in range(3):
        activation = right(step).requires_grad_()
        alone(Paths(1.0)(activation)).backward()
        for index in range(2):
            gradient, average = torch.load(tmp_path / f"{step}.{index}.pt", weights_only=True)
            torch.testing.assert_close(gradient, activation.grad, rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(average, alone.average)
