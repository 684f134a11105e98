import pytest
import torch
from tests.unit.losses.oracles_relation import irg_edges

from tutelage.errors import TutelageError
from tutelage.losses.relation.irg import IRG


def rows(seed, size=5, width=4):
    return torch.randn(size, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_by_hand():
    """Places 0, 1, 3 against 0, 2, 3: squares over 9, of which those to the middle one differ by 3 each."""
    student, teacher = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0], [2.0], [3.0]])
    assert IRG()(student, teacher).item() == pytest.approx(4 * (3 / 9) ** 2 / 2 / 3)


def test_changes_between_stages_count_as_the_stages_do():
    student, teacher = [rows(seed) for seed in (0, 1, 2)], [rows(seed, width=6) for seed in (3, 4, 5)]
    own, theirs = ([torch.tensor(irg_edges(x.tolist())) for x in stages] for stages in (student, teacher))
    apart = [(s - t) for s, t in zip(own, theirs, strict=True)]
    apart += [(own[i + 1] - own[i]) - (theirs[i + 1] - theirs[i]) for i in range(2)]
    expected = sum(float(x.double().square().sum()) for x in apart) / 2 / 5
    assert IRG()(student, teacher).item() == pytest.approx(expected, rel=1e-6)


def test_a_shift_changes_nothing():
    student, teacher = rows(0), rows(1)
    assert IRG()(student + 7, teacher).item() == pytest.approx(IRG()(student, teacher).item())


def test_stages_must_be_as_many():
    with pytest.raises(TutelageError, match="IRG: 1 stages of the student and 2 of the teacher"):
        IRG()([rows(0)], [rows(1), rows(2)])
