"""Local structure preserving against a loop over nodes in plain floats."""

import math

import pytest
import torch
from tests.unit.losses.properties import check_gradients, check_half_precision, value

from tutelage.errors import TutelageError
from tutelage.losses.relation.lsp import LSP, within

EDGES = torch.tensor([[0, 1, 2, 1, 3, 5, 0, 4], [1, 0, 1, 2, 1, 0, 5, 9]])  # 9 and 4 are not in the batch
NODES = torch.tensor([5, 1, 0, 3, 2])


def signals(scale=30.0):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (scale * torch.randn(5, width, generator=generator, dtype=torch.float64) for width in (3, 4))
    return {"student": student, "teacher": teacher, "node": NODES, "edges": EDGES}


def oracle(student, teacher, node, edges, kernel="l1", scale=100.0):
    row = {int(number): place for place, number in enumerate(node)}

    def shares(rows, i, neighbours):
        def near(j):
            apart = [a - b for a, b in zip(rows[row[i]].tolist(), rows[row[j]].tolist(), strict=True)]
            if kernel == "l1":
                return math.exp(-sum(map(abs, apart)) / scale)
            return math.exp(-sum(x * x for x in apart) / 2 / scale**2)

        powers = [math.exp(near(j)) for j in neighbours]
        return [x / sum(powers) for x in powers]

    found = []
    for i in row:
        neighbours = [int(a) for a, b in edges.T if int(b) == i and int(a) in row]
        if neighbours:
            pairs = zip(shares(teacher, i, neighbours), shares(student, i, neighbours), strict=True)
            found.append(sum(q * math.log(q / p) for q, p in pairs))
    return sum(found) / len(found)


@pytest.mark.parametrize("kernel", ["l1", "rbf"])
@pytest.mark.parametrize("scale", [5.0, 100.0])
def test_equals_the_oracle(kernel, scale):
    expected = oracle(**signals(0.3 * scale), kernel=kernel, scale=scale)
    assert value(LSP(kernel, scale), signals(0.3 * scale)) == pytest.approx(expected, rel=1e-6)
    assert expected > 1e-6


def test_a_single_node_that_is_entered_counts_whole():
    given = signals() | {"edges": torch.tensor([[0, 2, 5], [1, 1, 1]])}
    assert value(LSP(), given) == pytest.approx(oracle(**given), rel=1e-6)


@pytest.mark.parametrize("kernel", ["l1", "rbf"])
def test_gradient_and_half_precision(kernel):
    check_gradients(LSP(kernel), signals(), ("student", "teacher"))
    check_half_precision(LSP(kernel), signals(), "student")


def test_a_small_difference_keeps_its_digits_in_float32():
    given = signals(1.0) | {"student": signals(1.0)["teacher"] + 0.02 * torch.eye(5, 4, dtype=torch.float64)}
    single = given | {name: given[name].float() for name in ("student", "teacher")}
    assert oracle(**given) < 1e-7
    assert value(LSP(), single) == pytest.approx(oracle(**given), rel=1e-2)


def test_equal_signals_are_the_minimum():
    given = signals() | {"student": signals()["teacher"].requires_grad_()}
    loss = LSP()(**given)
    loss.backward()
    assert loss.item() == 0
    assert given["student"].grad.abs().max() < 1e-12


def test_the_order_of_batch_and_edges_does_not_matter():
    given, order = signals(), torch.tensor([3, 0, 4, 1, 2])
    moved = {name: given[name][order] for name in ("student", "teacher", "node")}
    assert value(LSP(), given | moved) == pytest.approx(value(LSP(), given), rel=1e-9)
    assert value(LSP(), given | {"edges": EDGES.flip(1)}) == pytest.approx(value(LSP(), given), rel=1e-9)


def test_without_an_edge_in_the_batch_it_is_zero_and_learns_nothing():
    given = signals() | {"edges": torch.tensor([[7], [8]])}
    given["student"].requires_grad_()
    loss = LSP()(**given)
    loss.backward()
    assert loss.item() == 0
    assert not given["student"].grad.any()


def test_edges_become_places_and_of_a_node_that_comes_twice_the_first_counts():
    assert within(torch.tensor([4, 2, 4]), torch.tensor([[2, 4, 3], [4, 2, 4]])).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LSP("gauss"), "LSP.kernel must be l1 or rbf; found 'gauss'"),
        (lambda: LSP(scale=0.0), "LSP.scale must be above 0"),
        (lambda: LSP()(**signals() | {"node": NODES[:3]}), r"expected node \[5\] and edges \[2, E\]; found \[3\]"),
        (lambda: LSP()(**signals() | {"edges": EDGES.T}), r"edges \[2, E\]; found .* \[8, 2\]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, said):
    with pytest.raises(TutelageError, match=said):
        make()
