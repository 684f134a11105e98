import math

import pytest
import torch

from tutelage.errors import TutelageError
from tutelage.losses.logit.lskd import LSKD, standardised
from tutelage.losses.logit.skd import SKD, _projected

G = torch.Generator().manual_seed(0)
STUDENT, TEACHER = (3 * torch.randn(4, 6, generator=G, dtype=torch.float64) for _ in range(2))


def test_scale_and_offset_of_each_row_mean_nothing() -> None:
    scale, loss = torch.tensor([[0.5], [1.0], [2.0], [30.0]]), SKD().double()
    expected = loss(STUDENT, TEACHER).item()
    assert loss(scale * STUDENT + 4, TEACHER).item() == pytest.approx(expected, rel=1e-5)
    assert loss(STUDENT, scale * TEACHER - 4).item() == pytest.approx(expected, rel=1e-5)
    assert loss(scale * TEACHER, TEACHER).item() == pytest.approx(0.0, abs=1e-10)


def test_it_is_standardisation_at_another_temperature_and_weight() -> None:
    factor = 2 * math.sqrt(6 / 5)  # m, and the other denominator of the variance
    found = SKD(multiplier=2.0, temperature=4.0).double()(STUDENT, TEACHER).item()
    assert found == pytest.approx(factor**2 * LSKD(4 / factor).double()(STUDENT, TEACHER).item(), rel=1e-5)


def test_equal_logits_have_a_finite_gradient() -> None:
    student = torch.zeros(4, 6, dtype=torch.float64, requires_grad=True)
    SKD().double()(student, TEACHER).backward()
    assert bool(student.grad.isfinite().all())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TutelageError, match=r"SKD\.multiplier"):
        SKD(multiplier=0.0)
    with pytest.raises(TutelageError, match="3 classes or more"):
        SKD()(STUDENT[:, :2], TEACHER[:, :2])


def test_a_masked_class_is_no_class() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 4, 6, dtype=torch.float64)
    masked = [torch.cat([z, z.new_full((4, 1), -torch.inf)], 1) for z in (student, teacher)]
    assert SKD().double()(*masked).item() == pytest.approx(SKD().double()(student, teacher).item(), rel=1e-9)


@pytest.mark.parametrize(("project", "corrected"), [(standardised, 1), (_projected, 0)])
@pytest.mark.parametrize("left", [1, 2, 3])
def test_few_classes_left_by_a_mask_are_standardised_as_they_are(project, corrected: int, left: int) -> None:
    z = torch.cat([STUDENT[:, :left], torch.full((4, 2), -torch.inf, dtype=torch.float64)], 1)
    apart = STUDENT[:, :left] - STUDENT[:, :left].mean(1, keepdim=True)
    spread = (apart.square().sum(1, keepdim=True) / max(1, left - corrected)).sqrt()
    expected = apart / spread if left > 1 else torch.zeros(4, 1, dtype=torch.float64)
    torch.testing.assert_close(project(z)[:, :left], expected, rtol=1e-5, atol=1e-12)
    assert (project(z)[:, left:] == -torch.inf).all()
