import math

import pytest
import torch
from tests.unit.losses.properties import check_gradients, check_half_precision, value
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.regression.teacher_bounded import TeacherBounded


def draw(rows: int = 8, numbers: int = 3) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    return {n: torch.randn(rows, numbers, generator=g, dtype=torch.float64) for n in ("student", "teacher", "label")}


def oracle(student: Tensor, teacher: Tensor, label: Tensor, margin: float) -> float:
    found = []
    for s, t, y in zip(student.tolist(), teacher.tolist(), label.tolist(), strict=True):
        known = [i for i, number in enumerate(y) if not math.isnan(number)]
        of_student, of_teacher = (sum((x[i] - y[i]) ** 2 for i in known) for x in (s, t))
        found.append(of_student if of_student + margin > of_teacher else 0.0)
    return sum(found) / len(found)


@pytest.mark.parametrize("margin", [0.0, 0.5, 3.0])
def test_the_value_is_the_formulas(margin: float) -> None:
    signals = draw()
    assert value(TeacherBounded(margin).double(), signals) == pytest.approx(oracle(**signals, margin=margin), rel=1e-6)
    check_gradients(TeacherBounded(margin).double(), signals, ("student",))


def test_a_student_that_is_ahead_by_the_margin_learns_nothing() -> None:
    label, teacher = torch.zeros(3, 1), torch.tensor([[2.0], [2.0], [2.0]])
    student = torch.tensor([[1.0], [1.9], [3.0]]).requires_grad_()
    loss = TeacherBounded(margin=1.0)(student, teacher, label)  # 1 + 1 ≤ 4; 3.61 + 1 > 4; 9 + 1 > 4
    loss.backward()
    assert loss.item() == pytest.approx((1.9**2 + 9) / 3, rel=1e-6)
    torch.testing.assert_close(student.grad, torch.tensor([[0.0], [2 * 1.9 / 3], [2.0]]))
    assert value(TeacherBounded(3.0), {"student": student[:1], "teacher": teacher[:1], "label": label[:1]}) == 0
    assert value(TeacherBounded(), {"student": student[1:2], "teacher": teacher[:1], "label": label[:1]}) == 0


def test_with_a_wide_margin_it_is_the_distance_to_the_label() -> None:
    signals = draw()
    expected = (signals["student"] - signals["label"]).square().sum(1).mean().item()
    assert value(TeacherBounded(1e6).double(), signals) == pytest.approx(expected, rel=1e-12)


def test_rows_may_be_single_numbers() -> None:
    signals = draw(8, 1)
    flat = {name: x[:, 0] for name, x in signals.items()}
    assert value(TeacherBounded(), flat) == value(TeacherBounded(), signals)


def test_a_number_without_a_label_is_left_out() -> None:
    signals = draw()
    signals["label"][0, 1] = signals["label"][3] = math.nan
    signals["student"].requires_grad_()
    loss = TeacherBounded(0.5).double()(**signals)
    assert loss.item() == pytest.approx(oracle(**signals, margin=0.5), rel=1e-6)
    gradient = torch.autograd.grad(loss, signals["student"])[0]
    assert gradient.isfinite().all()
    assert not gradient[0, 1]
    assert not gradient[3].any()


def test_half_precision() -> None:
    check_half_precision(TeacherBounded(10.0), draw(64), "student")


def test_what_does_not_fit_is_refused() -> None:
    signals = draw()
    with pytest.raises(TutelageError, match=r"floats \[8, 3\] as labels.*found torch.float64 \[8\]"):
        TeacherBounded()(**signals | {"label": signals["label"][:, 0]})
    with pytest.raises(TutelageError, match=r"student \[8, 3\] and teacher \[8, 1\]"):
        TeacherBounded()(**signals | {"teacher": signals["teacher"][:, :1]})
    with pytest.raises(TutelageError, match=r"TeacherBounded.margin: .*found -1"):
        TeacherBounded(-1)
