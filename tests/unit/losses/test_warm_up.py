import pytest
import torch

from tutelage.errors import TutelageError
from tutelage.losses.dkd import DKD
from tutelage.losses.warm_up import WarmUp

G = torch.Generator().manual_seed(0)
SIGNALS = {"student": torch.randn(3, 4, generator=G), "teacher": torch.randn(3, 4, generator=G)}
SIGNALS["label"] = torch.tensor([0, 1, 2])


def test_the_weight_grows_linearly_to_1() -> None:
    loss, full = WarmUp(DKD(), epochs=4), DKD()(**SIGNALS).item()
    found = [loss(**SIGNALS).item() / full]
    for epoch in range(6):
        loss.on_epoch_start(epoch, 240)
        found.append(loss(**SIGNALS).item() / full)
    assert found == pytest.approx([0.25, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_it_survives_a_checkpoint() -> None:
    loss, resumed = WarmUp(DKD(), epochs=4), WarmUp(DKD(), epochs=4)
    loss.on_epoch_start(2, 240)
    resumed.load_state_dict(loss.state_dict())
    assert torch.equal(resumed(**SIGNALS), loss(**SIGNALS))


def test_no_epoch_is_refused() -> None:
    with pytest.raises(TutelageError, match="found 0"):
        WarmUp(DKD(), epochs=0)
