import math

import pytest
import torch
from tests.unit.losses import oracles_feature as oracle
from torch import nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.ofd import OFD, margin


@pytest.mark.parametrize("weight", [0.01, 0.3, -1.0, 20.0])
@pytest.mark.parametrize("z", [-8.0, -1.0, 0.0, 0.7, 3.0, 5.0, 9.0])
def test_the_margin_is_the_mean_of_what_is_below_zero(weight: float, z: float) -> None:
    bias = z * abs(weight)
    expected = oracle.silence(weight, bias)
    double = margin(torch.tensor([weight], dtype=torch.float64), torch.tensor([bias], dtype=torch.float64))
    assert double.item() == pytest.approx(expected, rel=1e-5)
    single = margin(torch.tensor([weight]), torch.tensor([bias]))
    assert single.item() == pytest.approx(expected, rel=1e-4)


def test_the_margin_at_zero_mean_in_closed_form() -> None:
    torch.testing.assert_close(margin(torch.tensor([3.0]), torch.tensor([0.0])).item(), -3 * math.sqrt(2 / math.pi))


def test_the_margin_of_a_channel_that_is_sure_of_itself() -> None:
    """No spread, or a mean many spreads away: min(bias, 0), never above 0, never NaN."""
    weight, bias = torch.tensor([0.0, 0.0, 0.0, 1e-20, 1e-3, 1e-3]), torch.tensor([2.0, -2.0, 0.0, 1.0, 1e3, -1e3])
    found = margin(weight, bias)
    torch.testing.assert_close(found, bias.clamp_max(0), rtol=0, atol=1e-4)
    assert (found <= 0).all()


def loss_without_connector(*stages: torch.Tensor, weight: float = 1.0, bias: float = 0.0) -> torch.Tensor:
    """One channel, the connector replaced by the identity; stages: student, teacher."""
    loss = OFD()
    signals = (*stages, torch.tensor([weight]), torch.tensor([bias]))
    loss(*signals)
    loss.connectors[0] = nn.Identity()
    return loss(*signals)


@pytest.mark.parametrize(
    ("student", "teacher", "cost"),
    [
        (3.0, 1.0, 4.0),  # the teacher fires: plain distance
        (-1.0, 1.0, 4.0),
        (0.5, -0.25, 0.5625),  # silent above the margin, the student says more
        (-0.5, -0.25, 0.0),  # … less
        (-0.5, -9.0, (-0.5 + math.sqrt(2 / math.pi)) ** 2),  # silent below the margin: the margin is the target
        (-0.9, -9.0, 0.0),
    ],
)
def test_the_partial_distance_by_hand(student: float, teacher: float, cost: float) -> None:
    pair = torch.full((2, 1, 1, 1), student), torch.full((2, 1, 1, 1), teacher)
    assert loss_without_connector(*pair).item() == pytest.approx(cost, rel=1e-5)


def test_equal_features_cost_nothing() -> None:
    x = torch.randn(4, 1, 5, 5).clamp_min(-0.5)  # nothing below the margin, −0.8
    assert loss_without_connector(x, x).item() == 0


def test_earlier_stages_count_half_as_much() -> None:
    x, t, one, zero = -torch.ones(2, 1), torch.ones(2, 1), torch.ones(1), torch.zeros(1)
    loss = OFD()
    signals = [[v, v] for v in (x, t, one, zero)]
    loss(*signals)
    loss.connectors = nn.ModuleList([nn.Identity(), nn.Identity()])
    assert loss(*signals).item() == 4 * (1 + 1 / 2)


@pytest.mark.parametrize(
    ("weight", "bias", "named"),
    [((5,), (6,), "bn_weight"), ((6,), (1,), "bn_bias"), ((6, 1), (6,), "bn_weight")],
)
def test_parameters_of_another_width_are_refused(weight: tuple, bias: tuple, named: str) -> None:
    pair = torch.randn(2, 3, 4, 4), torch.randn(2, 6, 4, 4)
    with pytest.raises(TutelageError, match=rf"{named} of shapes \[\[6\]\]; found \[\[[156]"):
        OFD()(*pair, torch.randn(weight), torch.randn(bias))


def test_a_missing_stage_of_parameters_is_refused() -> None:
    pair = [torch.randn(2, 3)] * 2, [torch.randn(2, 6)] * 2
    with pytest.raises(TutelageError, match=r"bn_bias of shapes \[\[6\], \[6\]\]; found \[\[6\]\]"):
        OFD()(*pair, [torch.ones(6)] * 2, [torch.ones(6)])
