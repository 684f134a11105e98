import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.evaluation.cost import multiply_adds
from tutelage.models.soft_tree import SoftTree


def tree(depth: int = 3, **options: float | str) -> SoftTree:
    torch.manual_seed(0)
    net = SoftTree([1, 4, 4], 5, depth=depth, **options).double()
    with torch.no_grad():
        net.filters.weight.mul_(4)
    return net


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def path_probability(net: SoftTree, x: Tensor, leaf: int, beta: float = 1.0) -> float:
    """The product along the bits of the leaf's number, 1 for right, from the root down."""
    depth = int(math.log2(len(net.leaves.logits)))
    node, probability = 0, 1.0
    for level in reversed(range(depth)):
        turn = leaf >> level & 1
        z = beta * (net.filters.weight[node] @ x.flatten() + net.filters.bias[node]).item()
        p = 1 / (1 + math.exp(-z))
        probability *= p if turn else 1 - p
        node = 2 * node + 1 + turn
    return probability


@pytest.mark.parametrize("beta", [1.0, 2.5])
def test_path_probabilities_are_the_products_along_the_paths(beta: float) -> None:
    net = tree(beta=beta)
    found = net.paths(net.filters(images().flatten(1))).exp()
    expected = [[path_probability(net, x, leaf, beta) for leaf in range(8)] for x in images()]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(found.sum(1), torch.ones(6, dtype=torch.float64))


def test_in_training_the_mean_of_all_leaves_answers_in_evaluation_what_was_chosen() -> None:
    net, x = tree(), images()
    p = net.paths(net.filters(x.flatten(1))).exp()
    mean, each = (p @ net.leaves.logits.softmax(1)).log(), net.leaves.logits.log_softmax(1)
    torch.testing.assert_close(net.train()(x), mean)
    torch.testing.assert_close(net.eval()(x), each[p.argmax(1)])
    net.leaves.answer = "mean"
    torch.testing.assert_close(net(x), mean)
    assert not torch.allclose(mean.exp(), each[p.argmax(1)].exp(), atol=1e-3)


def test_depth_1_is_one_decision() -> None:
    """Two leaves that are sure: logistic regression."""
    net = tree(depth=1, answer="mean")
    with torch.no_grad():
        net.leaves.logits.copy_(torch.full((2, 5), -80.0))
        net.leaves.logits[0, 0] = net.leaves.logits[1, 1] = 0.0
    z = net.filters(images().flatten(1))[:, 0]
    found = net(images())[:, :2]
    torch.testing.assert_close(found, torch.stack([F.logsigmoid(-z), F.logsigmoid(z)], 1))


def test_every_logit_is_finite_however_sure_the_tree_is() -> None:
    net = tree(answer="mean").float()
    with torch.no_grad():
        net.filters.weight.mul_(1e4)
        net.leaves.logits.mul_(1e3)
    for net.leaves.answer in ("leaf", "mean"):
        for mode in (True, False):
            assert net.train(mode)(images().float()).isfinite().all()


def test_half_precision_keeps_path_probabilities_that_add_up_to_one() -> None:
    net, x = tree(depth=8).float(), images().float()
    with torch.autocast("cpu", torch.bfloat16):
        reached = net.paths(net.filters(x.flatten(1)))
        logits = net(x)
    assert reached.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(reached.exp().sum(1), torch.ones(6))


def test_an_answer_by_the_greatest_path_costs_the_filters_alone() -> None:
    assert multiply_adds(tree(), [1, 4, 4]) == 16 * 7
    assert multiply_adds(tree(answer="mean"), [1, 4, 4]) == 16 * 7 + 8 * 5


def test_what_is_no_tree_is_refused() -> None:
    for options in ({"depth": 0}, {"beta": 0.0}, {"beta": math.inf}, {"answer": "leafs"}):
        with pytest.raises(TutelageError, match=f"SoftTree: .*{next(iter(options))}"):
            SoftTree([1, 4, 4], 5, **options)
