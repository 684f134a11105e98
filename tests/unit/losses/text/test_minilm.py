import numpy as np
import pytest
import torch
from tests.unit.losses import reference
from tests.unit.losses.properties import check_gradients, check_half_precision, check_padding, value
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.text.minilm import MiniLM, MiniLMv2, relation_kl

NAMES = tuple(reference.states())
BOTH = pytest.mark.parametrize("make", [MiniLM, MiniLMv2], ids=["v1", "v2"])


def signals(**others: Tensor) -> dict[str, Tensor]:
    return reference.states() | others


def pair(*names: str) -> tuple[Tensor, Tensor]:
    first, second = (reference.states()[name] for name in names)
    return first, second


def oracle(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], heads: int, mask: Tensor) -> float:
    """Example by example, cut to its tokens, head by head, row by row."""
    found = []
    for b in range(len(mask)):
        rows = []
        for head in range(heads):
            relations = []
            for x, y in (student, teacher):
                width = x.shape[2] // heads
                part = slice(head * width, (head + 1) * width)
                u, v = (one[b][mask[b]][:, part].numpy() for one in (x, y))
                e = np.exp(u @ v.T / np.sqrt(width))
                relations.append(e / e.sum(1, keepdims=True))
            rows += list((relations[1] * np.log(relations[1] / relations[0])).sum(1))
        found.append(np.mean(rows))
    return float(np.mean(found))


def test_the_values_of_the_reference() -> None:
    attention = relation_kl(
        pair("student_query", "student_key"), pair("teacher_query", "teacher_key"), 2, reference.MASK
    )
    assert attention.item() == pytest.approx(0.4929965394, abs=1e-9)
    assert value(MiniLM(2), signals(mask=reference.MASK)) == pytest.approx(0.4929965394 + 0.4005938137, abs=1e-9)
    for expected, weights in ((0.4224126419, (1, 0, 0)), (0.5071245788, (0, 1, 0)), (0.4005938137, (0, 0, 1))):
        assert value(MiniLMv2(2, *weights).double(), signals(mask=reference.MASK)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_the_value_is_the_formulas(heads: int) -> None:
    named = signals()
    for name in NAMES[3:]:  # the teacher is twice as wide
        named[name] = torch.cat([named[name], named[name].sin()], 2)
    q, k, v = (tuple((named[f"{whose}_{x}"]) for whose in ("student", "teacher")) for x in ("query", "key", "value"))
    mask = reference.MASK
    attention, of_values = (
        oracle((q[0], k[0]), (q[1], k[1]), heads, mask),
        oracle((v[0],) * 2, (v[1],) * 2, heads, mask),
    )
    assert value(MiniLM(heads), named | {"mask": mask}) == pytest.approx(attention + of_values, rel=1e-12)
    expected = sum(w * oracle((s, s), (t, t), heads, mask) for w, (s, t) in zip((0.5, 2, 1), (q, k, v), strict=True))
    assert value(MiniLMv2(heads, 0.5, 2.0, 1.0).double(), named | {"mask": mask}) == pytest.approx(expected, rel=1e-12)


@BOTH
def test_gradients_are_the_finite_differences(make: type[nn.Module]) -> None:
    check_gradients(make(2).double(), signals(mask=reference.MASK), NAMES[:3])
    check_gradients(make(2).double(), signals(), NAMES)


@BOTH
def test_what_padding_holds_changes_nothing(make: type[nn.Module]) -> None:
    cut = reference.MASK.clone()
    cut[1, 3] = False
    valid = {name: x[:, :3] for name, x in signals().items()}
    check_padding(make(2).double(), signals(mask=cut), dict.fromkeys(NAMES, "mask"), valid)


@BOTH
def test_padding_may_stand_anywhere_and_the_order_of_examples_means_nothing(make: type[nn.Module]) -> None:
    loss, order = make(2).double(), torch.tensor([3, 1, 0, 2])
    expected = pytest.approx(value(loss, signals(mask=reference.MASK)), rel=1e-12)
    assert value(loss, {name: x[:, order] for name, x in signals(mask=reference.MASK).items()}) == expected
    assert value(loss, {name: x.flip(0) for name, x in signals(mask=reference.MASK).items()}) == expected
    longer = {name: torch.cat([x, x], 1) for name, x in signals().items()}
    mask = torch.cat([reference.MASK, torch.zeros_like(reference.MASK)], 1)
    assert value(loss, longer | {"mask": mask}) == expected


@BOTH
def test_agreement_is_the_minimum(make: type[nn.Module]) -> None:
    same = signals(mask=reference.MASK)
    for name in NAMES[:3]:
        same[name] = same[name.replace("student", "teacher")].clone().requires_grad_()
    loss = make(2).double()(**same)
    assert loss.item() == pytest.approx(0, abs=1e-15)
    assert all(g.abs().max() < 1e-15 for g in torch.autograd.grad(loss, [same[name] for name in NAMES[:3]]))


@BOTH
def test_a_rotation_within_the_heads_means_nothing(make: type[nn.Module]) -> None:
    turn = torch.block_diag(*[torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q for _ in range(2)])
    turned = {name: x @ turn if name.startswith("student") else x for name, x in signals().items()}
    assert value(make(2).double(), turned) == pytest.approx(value(make(2).double(), signals()), rel=1e-12)


@BOTH
def test_an_example_without_a_token_adds_0(make: type[nn.Module]) -> None:
    mask = reference.MASK.clone()
    mask[0] = False
    second = {name: x[1:] for name, x in signals(mask=mask).items()}
    loss = make(2).double()
    assert value(loss, signals(mask=mask)) == pytest.approx(value(loss, second) / 2, rel=1e-12)
    assert value(loss, signals(mask=torch.zeros_like(mask))) == 0


@BOTH
def test_half_precision(make: type[nn.Module]) -> None:
    check_half_precision(make(2), signals(mask=reference.MASK), "student_query")


@BOTH
def test_what_does_not_fit_is_refused(make: type[nn.Module]) -> None:
    with pytest.raises(
        TutelageError, match=r"every width must be a multiple of 4 heads; found student_query \[2, 4, 6\]"
    ):
        make(4)(**signals())
    with pytest.raises(TutelageError, match=r"same B and L; found .*teacher_value \[2, 3, 6\]"):
        make(2)(**signals() | {"teacher_value": torch.ones(2, 3, 6)})
    with pytest.raises(TutelageError, match=r"mask of bools \[2, 4\].*; found torch.bool \[2, 3\]"):
        make(2)(**signals(mask=reference.MASK[:, :3]))
    with pytest.raises(TutelageError, match=r"heads: expected an integer of 1 or more, found"):
        make(2.5)


def test_a_weight_below_0_is_refused() -> None:
    with pytest.raises(TutelageError, match=r"MiniLMv2.key: .*found -1"):
        MiniLMv2(2, key=-1)
