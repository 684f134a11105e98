import pytest
import torch

from tutelage.losses.feature.at import AT


def test_equal_places_cost_nothing_whatever_the_channels() -> None:
    student = torch.randn(3, 4, 5, 5)
    teacher = torch.cat([student[:, [2, 0, 3, 1]], -student], 1)  # the same energy everywhere, twice
    torch.testing.assert_close(AT()(student, teacher), torch.tensor(0.0), rtol=0, atol=1e-12)


def test_it_does_not_see_order_sign_or_scale_of_the_channels() -> None:
    student, teacher = torch.randn(3, 4, 5, 5), torch.randn(3, 6, 5, 5)
    value = AT()(student, teacher)
    other = AT()(-7.0 * student[:, [3, 1, 0, 2]], 0.01 * teacher.flip(1))
    torch.testing.assert_close(other, value, rtol=1e-5, atol=0)


def test_one_place_against_another_is_the_largest_distance() -> None:
    """Two unit vectors at right angles are √2 apart: 2 over B·HW = 4 places, the same for each example."""
    here, there = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    here[:, :, 0, 0], there[:, :, 1, 1] = 5, 3
    torch.testing.assert_close(AT()(here, there), torch.tensor(2 / 4))


def test_stages_add_up_and_a_tensor_is_one_stage() -> None:
    student = [torch.randn(3, c, 4, 4) for c in (2, 3)]
    teacher = [torch.randn(3, c, 8, 8) for c in (5, 6)]
    parts = [AT()(s, t) for s, t in zip(student, teacher, strict=True)]
    torch.testing.assert_close(AT()(student, teacher), sum(parts))


def test_tokens_are_places() -> None:
    student, teacher = torch.randn(3, 4, 2, 5), torch.randn(3, 6, 2, 5)
    tokens = [x.flatten(2).mT for x in (student, teacher)]
    torch.testing.assert_close(AT()(*tokens), AT()(student, teacher))


@pytest.mark.parametrize("silent", ["student", "teacher", "both"])
def test_a_silent_map_is_finite_with_its_gradient(silent: str) -> None:
    student = torch.randn(2, 3, 4, 4) * (silent == "teacher")
    student.requires_grad_()
    value = AT()(student, torch.randn(2, 3, 4, 4) * (silent == "student"))
    value.backward()
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
