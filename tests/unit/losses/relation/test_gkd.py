import pytest
import torch

from tutelage.errors import TutelageError
from tutelage.losses.relation.gkd import GKD


def rows(seed, size=6, width=4):
    return torch.rand(size, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def walks(x, power, mask=None):
    x = x / x.norm(dim=1, keepdim=True)
    s = (x @ x.T).fill_diagonal_(0)
    s = s if mask is None else s * mask
    d = torch.diag(s.sum(1) ** -0.5)
    return torch.linalg.matrix_power(d @ s @ d, power)


def test_by_hand():
    """Three examples, all alike: ½ between any two. The teacher's third is alone: 1 between the other two."""
    student, teacher = torch.ones(3, 2), torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert GKD()(student, teacher).item() == pytest.approx(2 * 0.5**2 + 4 * 0.5**2)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_stages_are_averaged_and_graphs_raised_to_a_power(power):
    student, teacher = [rows(0), rows(1, width=3)], [rows(2, width=5), rows(3)]
    expected = sum(
        float((walks(s, power) - walks(t, power)).square().sum()) for s, t in zip(student, teacher, strict=True)
    )
    assert GKD(power=power)(student, teacher).item() == pytest.approx(expected / 2)


def test_edges_are_those_to_the_teachers_nearest_examples():
    student, teacher = rows(0), rows(1)
    unit = teacher / teacher.norm(dim=1, keepdim=True)
    near = (unit @ unit.T).fill_diagonal_(0)
    mask = torch.zeros(6, 6, dtype=torch.float64)
    for i in range(6):
        for j in near[i].argsort(descending=True)[:2]:
            mask[i, j] = mask[j, i] = 1
    expected = (walks(student, 1, mask) - walks(teacher, 1, mask)).square().sum()
    assert GKD(neighbours=2)(student, teacher).item() == pytest.approx(float(expected))
    assert GKD(neighbours=6)(student, teacher).item() == GKD()(student, teacher).item()


def test_signed_features_stay_finite():
    """Where the authors' degrees would be negative and their roots NaN."""
    student = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    value = GKD()(student, -student.detach())
    value.backward()
    assert bool(value.isfinite())
    assert bool(student.grad.isfinite().all())


@pytest.mark.parametrize(("argument", "value"), [("neighbours", 0), ("power", 0), ("power", 1.5), ("neighbours", True)])
def test_numbers_out_of_range_are_refused(argument, value):
    with pytest.raises(TutelageError, match=rf"GKD.{argument} must be a whole number of at least 1; found {value}"):
        GKD(**{argument: value})


def test_stages_must_be_as_many():
    with pytest.raises(TutelageError, match="GKD: 2 stages of the student and 1 of the teacher"):
        GKD()([rows(0), rows(1)], rows(2))
