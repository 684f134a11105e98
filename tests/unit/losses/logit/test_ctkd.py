import math

import pytest
import torch
from tests.unit.losses import oracles_logit as oracle

from tutelage.errors import TutelageError
from tutelage.losses.logit.ctkd import CTKD
from tutelage.losses.logit.soft_target import SoftTarget

G = torch.Generator().manual_seed(0)
STUDENT, TEACHER = (3 * torch.randn(4, 6, generator=G, dtype=torch.float64) for _ in range(2))


def test_the_first_temperature() -> None:
    loss = CTKD()
    assert loss.temperature().detach().item() == pytest.approx(1 + 20 / (1 + math.exp(-1)), rel=1e-6)
    expected = SoftTarget(loss.temperature().detach().item())(STUDENT, TEACHER).item()
    assert loss(STUDENT, TEACHER).detach().item() == pytest.approx(expected, rel=1e-6)


def test_the_reversal_grows_by_half_a_cosine() -> None:
    loss = CTKD(ramp=4)
    found = []
    for epoch in range(6):
        loss.on_epoch_start(epoch, 100)
        found.append(loss.reversal.item())
    half = math.sqrt(0.5)
    assert found == pytest.approx([(1 - half) / 2, 0.5, (1 + half) / 2, 1.0, 1.0, 1.0])
    assert CTKD(ramp=4).reversal.item() == pytest.approx(found[0])


@pytest.mark.parametrize("epoch", [0, 4, 20])
def test_the_temperature_climbs_where_the_student_descends(epoch: int) -> None:
    loss = CTKD().double()
    loss.on_epoch_start(epoch, 240)
    loss(STUDENT, TEACHER).backward()
    values = []
    for step in (1e-6, -1e-6):
        temperature = 1 + 20 / (1 + math.exp(-1 - step))
        values.append(oracle.soft_target(STUDENT.numpy(), TEACHER.numpy(), temperature))
    slope = (values[0] - values[1]) / 2e-6
    assert loss.theta.grad.item() == pytest.approx(-loss.reversal.item() * slope, rel=1e-5)


def test_an_optimizer_that_minimises_raises_the_loss_by_the_temperature() -> None:
    loss = CTKD(ramp=1)
    before = loss(STUDENT, TEACHER).detach().item()
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        loss(STUDENT, TEACHER).backward()
        optimizer.step()
    assert loss(STUDENT, TEACHER).detach().item() > before
    assert 1.0 < loss.temperature().detach().item() < 21.0


def test_the_schedule_survives_a_checkpoint() -> None:
    loss, resumed = CTKD(), CTKD()
    loss.on_epoch_start(5, 240)
    resumed.load_state_dict(loss.state_dict())
    assert torch.equal(resumed.reversal, loss.reversal)
    assert set(loss.state_dict()) == {"theta", "reversal"}


def test_a_ramp_of_no_epoch_is_refused() -> None:
    with pytest.raises(TutelageError, match=r"ramp.*found 0"):
        CTKD(ramp=0)
