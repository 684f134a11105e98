import math

import pytest
import torch

from tutelage.losses.logit.logit_mse import LogitMSE


def test_summed_over_classes_and_averaged_over_rows() -> None:
    student, teacher = (
        torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]),
        torch.tensor([[0.0, 2.0, 5.0], [0.0, 1.0, 0.0]]),
    )
    assert LogitMSE()(student, teacher).item() == (5 + 1) / 2
    assert LogitMSE()(student, teacher).item() == pytest.approx(3 * torch.nn.MSELoss()(student, teacher).item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_class_masked_on_one_side_costs_everything(dtype: torch.dtype) -> None:
    masked, open_ = torch.tensor([[0.0, -math.inf]], dtype=dtype), torch.zeros(1, 2, dtype=dtype)
    assert LogitMSE()(masked, open_).item() == LogitMSE()(open_, masked).item() == math.inf
    assert LogitMSE()(masked, masked).item() == 0.0
