import numpy as np
import pytest
import torch
from tests.unit.losses import reference
from tests.unit.losses.properties import check_gradients, check_half_precision, value
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.text.distilbert import CosineStates
from tutelage.objective import Term


def draw() -> dict[str, Tensor]:
    found = reference.states()
    return {"student": found["student_query"], "teacher": found["teacher_query"]}


def test_the_value_of_the_reference() -> None:
    tokens = {name: x[reference.MASK] for name, x in draw().items()}
    assert value(CosineStates(), tokens) == pytest.approx(0.9285951705, abs=1e-9)
    loss = torch.nn.CosineEmbeddingLoss()
    assert value(CosineStates(), tokens) == pytest.approx(loss(*tokens.values(), torch.ones(7)).item(), abs=1e-9)


def test_the_value_is_the_formulas() -> None:
    rows = zip(*(x.flatten(0, 1).numpy() for x in draw().values()), strict=True)
    expected = np.mean([1 - s @ t / (np.linalg.norm(s) * np.linalg.norm(t)) for s, t in rows])
    assert value(CosineStates(), draw()) == pytest.approx(expected, rel=1e-12)


def test_gradients_are_the_finite_differences() -> None:
    check_gradients(CosineStates(), draw(), ("student", "teacher"))


def test_the_length_of_a_state_means_nothing_and_opposite_ones_cost_2() -> None:
    student = draw()["student"].requires_grad_()
    loss = CosineStates()(student, 3 * student.detach())
    assert loss.item() == pytest.approx(0, abs=1e-15)
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-15
    assert value(CosineStates(), {"student": student, "teacher": -student}) == pytest.approx(2, rel=1e-12)


def test_between_near_equals_float32_keeps_its_digits() -> None:
    teacher = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    student = teacher + 1e-3 * torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
    exact = value(CosineStates(), {"student": student.double(), "teacher": teacher.double()})
    assert value(CosineStates(), {"student": student, "teacher": teacher}) == pytest.approx(exact, rel=0.2)


def test_a_state_of_zeros_costs_1_and_gets_no_gradient() -> None:
    student = torch.zeros(2, 3).requires_grad_()
    loss = CosineStates()(student, torch.ones(2, 3))
    loss.backward()
    assert loss == 1
    assert not student.grad.any()


def test_half_precision() -> None:
    check_half_precision(CosineStates(), draw(), "student")


def test_padding_is_left_out_by_the_term() -> None:
    student = draw()["student"].requires_grad_()
    signals = {"student": {"h": student}, "teacher": {"h": draw()["teacher"]}, "batch": {"mask": reference.MASK}}
    found = Term(CosineStates(), {"student": "student.h"}, {"teacher": "teacher.h"}, where="batch.mask")(signals)
    assert found.item() == pytest.approx(0.9285951705, abs=1e-9)
    assert not torch.autograd.grad(found, student)[0][~reference.MASK].any()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TutelageError, match=r"CosineStates: student \[2, 3\] and teacher \[2, 1\]"):
        CosineStates()(torch.ones(2, 3), torch.ones(2, 1))
    with pytest.raises(TutelageError, match=r"CosineStates takes states \[N, d\], none empty; found \[0, 3\]"):
        CosineStates()(torch.ones(0, 3), torch.ones(0, 3))
