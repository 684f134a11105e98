"""A last batch of one example, with whatever a loss normalises by."""

import pytest
import torch
from torch import nn

from tutelage.losses.feature.adapt import Norm1d, Norm2d
from tutelage.losses.feature.reviewkd import ReviewKD
from tutelage.losses.feature.srrl import SRRL


@pytest.mark.parametrize(("ours", "torchs", "rest"), [(Norm1d, nn.BatchNorm1d, ()), (Norm2d, nn.BatchNorm2d, (1, 1))])
def test_one_number_a_channel_is_normalised_by_what_was_seen(ours, torchs, rest):
    norm, reference = ours(3), torchs(3)
    for _ in range(2):
        x = torch.randn(5, 3, *rest)
        assert torch.equal(norm(x), reference(x))
    state = {name: value.clone() for name, value in norm.state_dict().items()}
    lone = torch.randn(1, 3, *rest)
    assert torch.equal(norm(lone), reference.eval()(lone))
    assert all(torch.equal(value, state[name]) for name, value in norm.state_dict().items())


def test_srrl_survives_a_last_batch_of_one():
    loss = SRRL()
    for batch in (4, 1):
        student = torch.randn(batch, 3, requires_grad=True)
        loss(student, torch.randn(batch, 5), torch.randn(7, 5), torch.randn(batch, 7)).backward()
        assert student.grad.isfinite().all()
    assert loss.least_rows == 2  # as a whole batch it is refused


def test_reviewkd_survives_a_last_batch_of_one():
    loss = ReviewKD()
    for batch in (4, 1):
        student = [torch.randn(batch, 3, 4, 4, requires_grad=True), torch.randn(batch, 3, requires_grad=True)]
        loss(student, [torch.randn(batch, 5, 4, 4), torch.randn(batch, 5)]).backward()
        assert all(x.grad.isfinite().all() for x in student)
    assert loss.least_rows == 2
