import pytest
import torch
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.feature.fitnet import FitNet


def identity(loss: FitNet, student: Tensor) -> FitNet:
    """The loss with the identity for a regressor."""
    with torch.no_grad():
        loss(student, student)
        eye = torch.eye(student.shape[1 if student.ndim == 4 else -1])
        loss.regressor.weight.copy_(eye.reshape(loss.regressor.weight.shape))
        loss.regressor.bias.zero_()
    return loss


@pytest.mark.parametrize("shape", [(4, 3, 5, 5), (4, 6, 3), (4, 3)], ids=["maps", "tokens", "vectors"])
def test_equal_features_cost_nothing_and_a_shift_its_square(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    loss = identity(FitNet(), x)
    torch.testing.assert_close(loss(x, x), torch.tensor(0.0), rtol=0, atol=1e-12)
    torch.testing.assert_close(loss(x, x + 3), torch.tensor(9.0))


def test_the_regressor_can_be_learned_away() -> None:
    torch.manual_seed(0)
    student = torch.randn(64, 4, 3, 3)
    teacher = torch.einsum("oc,bchw->bohw", torch.randn(6, 4), student) + 1
    loss = FitNet()
    first = loss(student, teacher).item()
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss(student, teacher).backward()
        optimizer.step()
    assert loss(student, teacher).item() < 1e-4 * first


def test_rectified_the_regressor_tells_no_negative_value() -> None:
    student, teacher = torch.randn(8, 3, 4, 4), -torch.ones(8, 5, 4, 4)
    loss = FitNet(rectify=True)
    assert loss(student, teacher) > 1
    assert [type(layer).__name__ for layer in loss.regressor] == ["Conv2d", "Norm2d", "ReLU"]


def test_rectified_it_takes_no_tokens() -> None:
    with pytest.raises(TutelageError, match=r"FitNet takes maps .* or vectors .*; found student \[2, 5, 3\]"):
        FitNet(rectify=True)(torch.randn(2, 5, 3), torch.randn(2, 5, 4))


def test_a_teacher_of_another_width_later_is_refused_not_broadcast() -> None:
    loss = FitNet()
    loss(torch.randn(2, 3), torch.randn(2, 4))
    with pytest.raises(TutelageError, match=r"student \[2, 4\] and teacher \[2, 1\]"):
        loss(torch.randn(2, 3), torch.randn(2, 1))
