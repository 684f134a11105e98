import math

import pytest
import torch
from tests.unit.losses import oracles_feature as oracle
from torch import nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.ab import AB


@pytest.mark.parametrize(
    ("student", "teacher", "cost"),
    [
        (2.0, 0.1, 0.0),  # fires as the teacher, beyond the margin
        (1.0, 0.1, 0.0),
        (0.5, 9.0, 0.25),  # fires, but within the margin
        (-1.0, 0.1, 4.0),  # does not fire
        (-2.0, -0.1, 0.0),
        (-1.0, 0.0, 0.0),  # zero is silence
        (-0.5, -9.0, 0.25),
        (1.0, -0.1, 4.0),
    ],
)
def test_the_hinge_by_hand(student: float, teacher: float, cost: float) -> None:
    assert AB()(torch.tensor([[student]]), torch.tensor([[teacher]])).item() == cost


def test_it_sees_the_teacher_s_sign_only() -> None:
    student, teacher = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(AB()(student, 100 * teacher), AB()(student, teacher), rtol=0, atol=0)


@pytest.mark.parametrize("margin", [0.25, 3.0])
def test_another_margin(margin: float) -> None:
    student, teacher = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    expected = oracle.ab({}, student.double().numpy(), teacher.double().numpy(), margin)
    assert AB(margin)(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_only_stages_of_another_width_get_a_connector() -> None:
    loss = AB()
    student = [torch.randn(2, 3, 4, 4), torch.randn(2, 4, 4, 4)]
    loss(student, [torch.randn(2, 3, 4, 4), torch.randn(2, 6, 4, 4)])
    assert isinstance(loss.connectors[0], nn.Identity)
    assert [type(layer).__name__ for layer in loss.connectors[1]] == ["Conv2d", "Norm2d"]


def test_earlier_stages_count_half_as_much_each() -> None:
    x, t = -torch.ones(2, 1), torch.ones(2, 1)  # each example is 4 off
    assert AB()([x, x, x], [t, t, t]).item() == 4 * (1 + 1 / 2 + 1 / 4)


def test_the_margin_is_no_part_of_the_state() -> None:
    loss = AB(0.5)
    assert loss.margin.dtype == torch.float32
    assert loss.margin.shape == ()
    assert not loss.state_dict()


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan])
def test_a_margin_of_nothing_is_refused(margin: float) -> None:
    with pytest.raises(TutelageError, match=f"AB's margin must be above 0 and finite; found {margin}"):
        AB(margin)
