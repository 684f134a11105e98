import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.losses import oracles_relation as oracle

from tutelage.losses.relation.rkd import RKD, cosines, distances, relative

LINE = torch.tensor([[0.0], [1.0], [3.0]])
TRIANGLE = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])


def test_distances_by_hand():
    """1, 3, 2 over their mean 2 against 3, 4, 5 over 4: differences −¼, ½, −¼, each twice among 9."""
    loss = RKD(distance_weight=1, angle_weight=0)
    expected = 2 * (0.03125 + 0.125 + 0.03125) / 9
    assert loss(LINE, TRIANGLE).item() == pytest.approx(expected, rel=1e-6)


def test_angles_by_hand():
    """Cosines 1, −1, 1 against 0, 0.6, 0.8: h(1) = ½, h(1.6) = 1.1, h(0.2) = 0.02, each twice among 27."""
    loss = RKD(distance_weight=0, angle_weight=1)
    assert loss(LINE, TRIANGLE).item() == pytest.approx(2 * (0.5 + 1.1 + 0.02) / 27, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(3, 7), width=st.integers(1, 5), seed=st.integers(0, 10**6), equal=st.booleans())
def test_each_part_equals_its_oracle(size: int, width: int, seed: int, equal: bool):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(size, width, generator=generator, dtype=torch.float64) for _ in range(2))
    if equal:  # pairs that are 0 apart count neither in the mean distance nor as an angle
        student[1] = student[0]
    rows = student.tolist(), teacher.tolist()
    assert RKD(1, 0)(student, teacher).item() == pytest.approx(oracle.rkd_distance(*rows), rel=1e-9)
    assert RKD(0, 1)(student, teacher).item() == pytest.approx(oracle.rkd_angle(*rows), rel=1e-9)
    assert RKD(2, 3)(student, teacher).item() == pytest.approx(oracle.rkd(*rows, 2, 3), rel=1e-6)


def test_the_default_weights_are_the_published_ones():
    assert RKD()(LINE, TRIANGLE).item() == pytest.approx(25 * 0.375 / 9 + 50 * 0.12, rel=1e-6)


def test_shifting_changes_nothing():
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    assert RKD()(student + 3, teacher - 2).item() == pytest.approx(RKD()(student, teacher).item(), rel=1e-9)


def test_equal_examples_are_exactly_0_apart():
    torch.manual_seed(0)
    rows = 100 + torch.randn(1, 64).expand(4, -1)
    distance = distances(rows)
    assert torch.equal(distance, torch.zeros(4, 4))
    assert torch.equal(relative(distance), torch.zeros(4, 4))
    assert torch.equal(cosines(distance), torch.zeros(4, 4, 4))


@pytest.mark.parametrize("offset", [0.0, 100.0], ids=["centred", "far from the origin"])
@pytest.mark.parametrize("gap", [1e-2, 1e-3])
def test_float32_with_nearly_equal_examples(offset: float, gap: float):
    """Value and gradient within 1e-3 of float64, where ‖x‖² + ‖y‖² − 2x·y would have lost everything."""
    generator = torch.Generator().manual_seed(0)
    student, teacher, noise = (torch.randn(16, 32, generator=generator) for _ in range(3))
    student[8:] = student[:8] + gap * noise[8:]
    student += offset

    def value_and_gradient(dtype: torch.dtype) -> tuple[float, torch.Tensor]:
        x = student.to(dtype).requires_grad_()
        value = RKD()(x, teacher.to(dtype))
        return value.item(), torch.autograd.grad(value, x)[0].double()

    (value, gradient), (exact, slope) = value_and_gradient(torch.float32), value_and_gradient(torch.float64)
    assert value == pytest.approx(exact, rel=1e-4)
    assert ((gradient - slope).norm() / slope.norm()).item() < 1e-3
