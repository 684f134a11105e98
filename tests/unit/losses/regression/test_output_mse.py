import pytest
import torch
from tests.unit.losses.properties import check_gradients, check_half_precision, value

from tutelage.errors import TutelageError
from tutelage.losses.regression.output_mse import OutputMSE


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 3)])
def test_it_is_the_mean_of_the_squared_differences(shape: tuple[int, ...]) -> None:
    student, teacher = torch.randn(2, *shape, dtype=torch.float64)
    pairs = zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True)
    expected = sum((s - t) ** 2 for s, t in pairs) / student.numel()
    assert value(OutputMSE(), {"student": student, "teacher": teacher}) == pytest.approx(expected, rel=1e-12)
    check_gradients(OutputMSE(), {"student": student, "teacher": teacher}, ("student", "teacher"))


def test_half_precision() -> None:
    check_half_precision(OutputMSE(), {"student": torch.randn(64, 2), "teacher": torch.randn(64, 2)}, "student")


def test_a_column_against_a_vector_is_refused_not_compared_pair_by_pair() -> None:
    with pytest.raises(TutelageError, match=r"OutputMSE: student \[5, 1\] and teacher \[5\]"):
        OutputMSE()(torch.randn(5, 1), torch.randn(5))
