import math

import pytest
import torch
import torch.nn.functional as F
from tests.unit.losses.oracles_feature import gaussian_entropy_floor
from torch import nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.vid import VID


@pytest.mark.parametrize("variance", [0.01, 1.0, 5.0, 29.0, 31.0, 1000.0])
def test_the_variance_starts_where_it_is_told(variance: float) -> None:
    loss = VID(variance)
    loss(torch.randn(4, 3), torch.randn(4, 5))
    torch.testing.assert_close(F.softplus(loss.rhos[0]) + 1e-5, torch.full((5,), variance), rtol=1e-5, atol=0)


@pytest.mark.parametrize("variance", [0.5, 5.0])
def test_an_exact_regressor_costs_half_the_log_variance_and_no_less(variance: float) -> None:
    x = torch.randn(6, 3, 4, 4)
    loss = VID(variance)
    loss(x, x)
    loss.regressors[0] = nn.Identity()
    floor = torch.tensor(gaussian_entropy_floor(variance))
    torch.testing.assert_close(loss(x, x), floor)
    assert loss(x, x + 0.1) > floor


def test_the_regressor_is_three_layers_of_the_teacher_s_width_without_bias() -> None:
    loss = VID()
    loss([torch.randn(2, 3, 4, 4), torch.randn(2, 7)], [torch.randn(2, 5, 4, 4), torch.randn(2, 6)])
    shapes = [tuple(p.shape) for p in loss.regressors.parameters()]
    assert shapes == [(5, 3, 1, 1), (5, 5, 1, 1), (5, 5, 1, 1), (6, 7), (6, 6), (6, 6)]
    assert [len(rho) for rho in loss.rhos] == [5, 6]


def test_the_learned_variance_becomes_the_residual_s() -> None:
    """With a regressor that says nothing, σ² of each channel goes to the mean square of the teacher's."""
    torch.manual_seed(0)
    student, teacher = torch.randn(500, 2), torch.randn(500, 3) * torch.tensor([0.5, 1.0, 2.0])
    loss = VID()
    loss(student, teacher)
    for p in loss.regressors.parameters():
        nn.init.zeros_(p)
    optimizer = torch.optim.Adam(loss.rhos.parameters(), lr=0.1)
    for _ in range(500):
        optimizer.zero_grad()
        loss(student, teacher).backward()
        optimizer.step()
    torch.testing.assert_close(F.softplus(loss.rhos[0]) + 1e-5, teacher.square().mean(0), rtol=1e-2, atol=0)


@pytest.mark.parametrize("variance", [0.0, -1.0, 1e-5, math.nan, math.inf])
def test_a_variance_at_or_below_the_floor_is_refused(variance: float) -> None:
    with pytest.raises(TutelageError, match=f"VID's variance .* found {variance}"):
        VID(variance)
