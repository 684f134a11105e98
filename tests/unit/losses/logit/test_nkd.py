import math

import pytest
import torch

from tutelage.losses.logit.nkd import NKD

LABEL = torch.tensor([0])


def test_fixed_numbers() -> None:
    # q = (1/2, 1/4, 1/4), p = (1/4, 1/2, 1/4): q̂ = (1/2, 1/2), p̂ = (2/3, 1/3)
    student, teacher = (torch.tensor([row]).log() for row in ((0.25, 0.5, 0.25), (0.5, 0.25, 0.25)))
    of_others = -0.5 * (math.log(2 / 3) + math.log(1 / 3))
    for gamma in (0.0, 1.5):
        expected = 0.5 * math.log(4) + gamma * of_others
        assert NKD(gamma)(student, teacher, LABEL).item() == pytest.approx(expected, rel=1e-6)


def test_the_trust_in_the_label_is_detached_and_the_rest_is_not() -> None:
    g = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 5, generator=g).requires_grad_() for _ in range(2))
    label = torch.tensor([0, 1, 2, 3])
    assert not torch.autograd.grad(NKD(0.0)(student, teacher, label), teacher)[0].any()
    of_teacher = torch.autograd.grad(NKD(1.5)(student, teacher, label), teacher)[0]
    assert of_teacher.gather(1, label[:, None]).abs().max() < 1e-6
    assert of_teacher.abs().max() > 1e-2


def test_the_part_of_the_others_is_least_at_agreement() -> None:
    g = torch.Generator().manual_seed(0)
    teacher = torch.randn(4, 5, generator=g, dtype=torch.float64)
    label = torch.tensor([0, 1, 2, 3])
    same = teacher.clone().requires_grad_()
    others = NKD(1.0, 2.0)(same, teacher, label) - NKD(0.0)(same, teacher, label)
    assert torch.autograd.grad(others, same)[0].abs().max() < 1e-14
