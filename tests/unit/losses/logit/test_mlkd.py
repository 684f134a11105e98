import pytest
import torch
from tests.unit.losses.logit.test_soft_target import FullSize

from tutelage.errors import TutelageError
from tutelage.losses.logit.mlkd import MLKD


def test_fixed_numbers() -> None:
    # P = I, Q the reverse: P Pᵀ = Q Qᵀ and Pᵀ P = Qᵀ Q; against Q = [[1, 0], [1, 0]] the differences are
    # [[0, −1], [−1, 0]] and [[−1, 0], [0, 1]]
    sure = 1e4 * torch.eye(2)
    first = 1e4 * torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    relations = MLKD((1.0,), instance=0.0, batch=1.0, classes=1.0)
    assert relations(sure, sure.flip(0)).item() == 0.0
    assert MLKD((1.0,), instance=0.0, batch=1.0, classes=0.0)(sure, first).item() == 1.0
    assert MLKD((1.0,), instance=0.0, batch=0.0, classes=1.0)(sure, first).item() == 1.0
    assert MLKD((1.0, 2.0), instance=0.0, batch=1.0, classes=1.0)(sure, first).item() == 4.0


def test_near_equal_relations_do_not_cancel() -> None:
    g = torch.Generator().manual_seed(0)
    student = 3 * torch.randn(8, 50, generator=g, dtype=torch.float64)
    teacher = student + 1e-2 * torch.randn(8, 50, generator=g, dtype=torch.float64)
    loss = MLKD((2.0,), instance=0.0, batch=0.0)
    assert loss(student.float(), teacher.float()).item() == pytest.approx(loss(student, teacher).item(), rel=1e-3)


def test_no_matrix_of_classes_by_classes() -> None:
    student, teacher = (torch.randn(4, 500).requires_grad_() for _ in range(2))
    with FullSize(500 * 500) as count:
        MLKD()(student, teacher).backward()
    assert count.peak == 0


def test_no_temperature_is_refused() -> None:
    with pytest.raises(TutelageError, match=r"MLKD\.temperatures.*none"):
        MLKD(())
