import pytest
import torch
from tests.unit.losses import oracles_feature as oracle
from torch import nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.mgd import MGD


class Record(nn.Module):
    """Keeps what it was given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return x


def masked(channels: bool, ratio: float = 0.3) -> torch.Tensor:
    """Returns the generator's input for a map of ones."""
    loss = MGD(ratio, channels)
    ones = torch.ones(50, 40, 9, 9)
    with torch.no_grad():
        loss.build_once(ones, ones[:1])
        loss.generate = Record()
        loss(ones, ones)
    return loss.generate.seen


@pytest.mark.parametrize("channels", [False, True], ids=["pixels", "channels"])
def test_the_mask_hides_its_ratio_as_whole_pixels_or_channels(channels: bool) -> None:
    torch.manual_seed(0)
    seen = masked(channels)
    assert set(seen.unique().tolist()) == {0.0, 1.0}
    units = seen.flatten(2).mean(2) if channels else seen.mean(1)
    assert set(units.unique().tolist()) == {0.0, 1.0}  # hidden as a whole or not at all
    assert units.mean().item() == pytest.approx(0.7, abs=4 * (0.3 * 0.7 / units.numel()) ** 0.5)


def test_channels_by_the_oracle() -> None:
    student, teacher = torch.randn(3, 4, 5, 5), torch.randn(3, 6, 5, 5)
    loss = MGD(0.4, channels=True)
    loss(student, teacher)
    torch.manual_seed(7)
    value = loss(student, teacher).item()
    torch.manual_seed(7)
    kept = (torch.rand(3, 6, 1, 1) >= 0.4).numpy()
    state = {k: v.double().numpy() for k, v in loss.state_dict().items()}
    assert value == pytest.approx(oracle.mgd(state, student.numpy(), teacher.numpy(), kept), rel=1e-5)


def test_the_mask_is_the_global_generator_s() -> None:
    student, teacher = torch.randn(3, 4, 5, 5), torch.randn(3, 4, 5, 5)
    loss = MGD()
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(loss(student, teacher).item())
        torch.manual_seed(seed)  # the first call draws parameters first
        values[-1] = loss(student, teacher).item()
    assert values[0] == values[1] != values[2]


def test_without_a_mask_equal_maps_cost_nothing_and_a_shift_its_sum() -> None:
    x = torch.randn(3, 4, 5, 5)
    loss = MGD(ratio=0.0)
    loss(x, x)
    assert isinstance(loss.align, nn.Identity)
    loss.generate = nn.Identity()
    assert loss(x, x).item() == 0
    torch.testing.assert_close(loss(x, x + 2), torch.tensor(4.0 * 4 * 25))  # summed over C·H·W, averaged over B


def test_the_ratio_is_no_part_of_the_state() -> None:
    loss = MGD(0.25)
    assert loss.ratio.dtype == torch.float32
    assert loss.ratio.shape == ()
    assert not loss.state_dict()


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan")])
def test_a_ratio_outside_its_range_is_refused(ratio: float) -> None:
    with pytest.raises(TutelageError, match=rf"MGD's ratio must be in \[0, 1\); found {ratio}"):
        MGD(ratio)
