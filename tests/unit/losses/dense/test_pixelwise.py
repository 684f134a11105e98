"""Pixel-wise distillation: soft targets of every pixel, of which a term chooses those that count."""

import pytest
import torch
from tests.unit.losses import oracles_logit as oracle
from torch import Tensor

from tutelage.losses.logit.soft_target import SoftTarget
from tutelage.objective import Term
from tutelage.types import NO_LABEL, Signals


def draw() -> dict[str, Signals]:
    g = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(2, 4, 5, 3, generator=g, dtype=torch.float64) for _ in range(2))
    label = torch.randint(3, (2, 4, 5), generator=g)
    label[0, 2:], label[1, :, 4] = NO_LABEL, NO_LABEL
    return {"student": {"logits": student}, "teacher": {"logits": teacher}, "batch": {"label": label}}


def term(where: str) -> Term:
    loss = SoftTarget(2.0).double()
    return Term(loss, {"student": "student.logits"}, {"teacher": "teacher.logits"}, where=where)


def expected(signals: dict[str, Signals], mask: Tensor) -> float:
    student, teacher = (signals[whose]["logits"][mask].numpy() for whose in ("student", "teacher"))
    return oracle.soft_target(student, teacher, 2.0)


def test_pixels_without_a_label_are_left_out() -> None:
    signals = draw()
    known = signals["batch"]["label"] != NO_LABEL
    found = term("batch.label")(signals)
    assert found.item() == pytest.approx(expected(signals, known), rel=1e-12)
    signals["student"]["logits"][~known], signals["teacher"]["logits"][~known] = torch.nan, torch.inf
    assert torch.equal(term("batch.label")(signals), found)


def test_a_mask_may_say_which_pixels_count_whatever_their_label() -> None:
    signals, everywhere = draw(), torch.ones(2, 4, 5, dtype=torch.bool)
    signals["batch"]["mask"] = everywhere
    assert term("batch.mask")(signals).item() == pytest.approx(expected(signals, everywhere), rel=1e-12)


def test_a_pixel_that_does_not_count_gets_no_gradient() -> None:
    signals = draw()
    student = signals["student"]["logits"].requires_grad_()
    known = signals["batch"]["label"] != NO_LABEL
    gradient = torch.autograd.grad(term("batch.label")(signals), student)[0]
    assert not gradient[~known].any()
    assert gradient[known].any(-1).all()
    signals["batch"]["label"][:] = NO_LABEL
    none = term("batch.label")(signals)
    assert none == 0
    assert not torch.autograd.grad(none, student)[0].any()
