import pytest
import torch
from tests.unit.losses import oracles_feature as oracle

from tutelage.errors import TutelageError
from tutelage.losses.feature.cat_kd import CATKD


def signals(size: int = 6) -> dict[str, torch.Tensor]:
    return {
        "student": torch.randn(3, 4, size, size),
        "teacher": torch.randn(3, 5, 6, 6),
        "student_weight": torch.randn(7, 4),
        "teacher_weight": torch.randn(7, 5),
    }


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("resolution", [1, 2, 4, 6])
def test_any_resolution_with_and_without_normalisation(resolution: int, normalize: bool) -> None:
    given = signals(8)
    expected = oracle.cat_kd(
        {}, **{k: v.double().numpy() for k, v in given.items()}, side=resolution, normalize=normalize
    )
    value = CATKD(resolution, normalize)(**given).item()
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_equal_maps_cost_nothing_whatever_their_scale() -> None:
    given = signals()
    mix = torch.randn(4, 5)
    teacher = given | {  # a student whose 4 channels the teacher's 5 are made of
        "teacher": torch.einsum("dc,bdhw->bchw", mix, given["student"]),
        "student_weight": 3 * given["teacher_weight"] @ mix.T,
    }
    torch.testing.assert_close(CATKD()(**teacher), torch.tensor(0.0), rtol=0, atol=1e-10)
    assert CATKD(normalize=False)(**teacher) > 1e-3


def test_opposite_maps_are_two_apart() -> None:
    """‖ā_s − ā_t‖² = 4 for each class, over r² = 4 places."""
    given = signals()
    opposite = given | {"teacher": given["student"], "teacher_weight": -given["student_weight"]}
    torch.testing.assert_close(CATKD()(**opposite), torch.tensor(1.0))


def test_gradients_reach_the_student_s_classifier() -> None:
    given = signals()
    weight = given["student_weight"].requires_grad_()
    CATKD()(**given).backward()
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"teacher_weight": torch.randn(6, 5)},
            r"the same number of classes of both; found student_weight \[7, 4\].*\[6, 5\]",
        ),
        ({"teacher_weight": torch.randn(7, 4)}, r"found feature \[3, 5, 6, 6\], classifier weight \[7, 4\]"),
        ({"student": torch.randn(3, 4, 1, 6)}, r"at least 2×2.*found feature \[3, 4, 1, 6\]"),
    ],
)
def test_signals_that_do_not_fit_are_refused(change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(TutelageError, match=message):
        CATKD()(**signals() | change)


def test_a_resolution_of_nothing_is_refused() -> None:
    with pytest.raises(TutelageError, match="CAT-KD's resolution must be at least 1; found 0"):
        CATKD(resolution=0)


def test_a_dead_example_sends_no_gradient():
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    CATKD()(student, torch.rand(2, 5, 4, 4), torch.rand(7, 3), torch.rand(7, 5)).backward()
    assert float(student.grad.abs().max()) == 0.0
