"""ONE: each branch is drawn to the gated ensemble, which gets no gradient from it."""

import math

import pytest
import torch

from tutelage.errors import TutelageError
from tutelage.losses.online.one import ONE
from tutelage.losses.schedules import ramp_up


def signals(branches: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    z = torch.randn(5, branches + 1, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return z[:, 0].clone(), z[:, 1:-1].clone(), z[:, -1].clone()


def softened(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(z / temperature) for z in row]
    return [p / sum(powers) for p in powers]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_equals_plain_sums(temperature: float):
    student, others, ensemble = signals()
    total = 0.0
    for b in range(5):
        q = softened(ensemble[b].tolist(), temperature)
        for row in (student[b], *others[b]):
            p = softened(row.tolist(), temperature)
            total += temperature**2 * sum(t * math.log(t / s) for s, t in zip(p, q, strict=True)) / 5
    assert ONE(temperature)(student, others, ensemble).item() == pytest.approx(total, rel=1e-9)
    halves = [x.bfloat16() for x in (student, others, ensemble)]
    found = ONE(temperature)(*halves)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(ONE(temperature)(*(x.double() for x in halves)).item(), rel=1e-5)


def test_the_gradient_is_right_and_does_not_reach_the_ensemble():
    student, others, ensemble = (x.requires_grad_() for x in signals())
    assert torch.autograd.gradcheck(lambda s, o: ONE(3.0)(s, o, ensemble.detach()), (student, others))
    ONE()(student, others, ensemble).backward()
    assert ensemble.grad is None
    assert student.grad is not None


def test_branches_that_agree_with_the_ensemble_have_nothing_to_learn():
    student, _, _ = signals()
    assert ONE()(student, student[:, None], student).item() == pytest.approx(0, abs=1e-15)


def test_the_ramp_is_the_published_one():
    assert [ramp_up(e, 300, 80 / 300) for e in (0, 40, 79, 80, 299)] == pytest.approx(
        [math.exp(-5 * (1 - e / 80) ** 2) for e in (0, 40, 79)] + [1.0, 1.0]
    )


def test_other_shapes_are_refused():
    student, others, ensemble = signals()
    with pytest.raises(TutelageError, match=r"ONE: expected branches' logits \[B, K − 1, C\]"):
        ONE()(student, others[:, :, :3], ensemble)
    with pytest.raises(TutelageError, match="ONE"):
        ONE()(student, others, ensemble[:3])
