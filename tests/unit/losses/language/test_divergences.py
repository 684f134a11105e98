"""Divergences of language models, beyond test_logit_losses.py: reference values, limits, padding."""

import math

import pytest
import torch
from tests.unit.losses import reference
from tests.unit.losses.properties import check_gradients, value
from torch import Tensor, nn

from tutelage.losses.language.akl import AKL
from tutelage.losses.language.mixture import JSD, SkewKL, SkewReverseKL
from tutelage.losses.language.reverse_kl import ReverseKL
from tutelage.losses.language.total_variation import TotalVariation
from tutelage.losses.logit.soft_target import SoftTarget
from tutelage.objective import Term

FORWARD, REVERSE = 1.4496044680, 1.8006419893
REFERENCE: dict[str, tuple[nn.Module, float]] = {
    "forward": (SoftTarget(1.0), FORWARD),
    "reverse": (ReverseKL(), REVERSE),
    "JSD 0": (JSD(0.0), FORWARD),
    "JSD 0.1": (JSD(0.1), 0.1142213232),
    "JSD 0.5": (JSD(0.5), 0.2891493218),
    "JSD 0.9": (JSD(0.9), 0.1271631587),
    "JSD 1": (JSD(1.0), REVERSE),
    "JSD 0.5 at T = 2": (JSD(0.5, 2.0), 4 * 0.1302294164),  # the reference has no T²
    "JSD 0.1, normalized": (JSD(0.1, normalized=True), 0.1142213232 / 0.09),
    "JSD 0.5, normalized": (JSD(0.5, normalized=True), 0.2891493218 / 0.25),
    "JSD 0, normalized": (JSD(0.0, normalized=True), FORWARD),
    "JSD 1, normalized": (JSD(1.0, normalized=True), REVERSE),
    "skew": (SkewKL(), 0.9466848831),
    "skew reverse": (SkewReverseKL(), 1.0004491401),
    "AKL": (AKL(), 1.6828864467),
    "total variation": (TotalVariation(), 0.6030688064),  # the reference, in float32: 0.60306877
}


def exact(loss: nn.Module) -> nn.Module:
    """The loss with its hyperparameters in float64: 0.1 in float32 is off by 1.5e-9."""
    for name, x in loss.named_buffers():
        setattr(loss, name, torch.tensor(round(x.item(), 6), dtype=torch.float64))
    return loss


def tokens() -> dict[str, Tensor]:
    return dict(zip(("student", "teacher"), reference.answers(), strict=True))


@pytest.mark.parametrize("name", REFERENCE)
def test_the_value_of_the_reference(name: str) -> None:
    loss, expected = REFERENCE[name]
    assert value(exact(loss), tokens()) == pytest.approx(expected, abs=1e-8 if "normalized" in name else 1e-9)


def test_the_entropy_of_the_teacher_and_the_shares_of_akls_heads_are_the_references() -> None:
    """What its "forward KL" adds; and h = s₁ / (s₁ + s₂) of each token, from the differences of probabilities."""
    student, teacher = reference.answers()
    p, q = student.softmax(-1), teacher.softmax(-1)
    assert -(q * q.log()).sum(-1).mean().item() == pytest.approx(0.9914596119, abs=1e-9)
    high, order = q.sort(-1, descending=True)
    head = high.cumsum(-1) <= 0.5
    head[:, 0] = True
    gap = (q - p).abs().gather(-1, order)
    shares = (gap * head).sum(-1) / gap.sum(-1)
    assert shares.tolist() == pytest.approx([0.2234, 0.2138, 0.0262, 0.3897, 0.4757], abs=5e-5)
    forward, reverse = ((x * (x / y).log()).sum(-1) for x, y in ((q, p), (p, q)))
    expected = (shares * forward + (1 - shares) * reverse).mean().item()
    assert value(AKL(), tokens()) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in REFERENCE if name != "AKL"])
def test_gradients_are_the_finite_differences_at_the_ends_too(name: str) -> None:
    check_gradients(REFERENCE[name][0].double(), tokens(), ("student", "teacher"))


@pytest.mark.parametrize("name", REFERENCE)
def test_in_a_term_padding_has_no_say(name: str) -> None:
    """``label[i]`` is what ``logits[i]`` say: of [B, L, V] the tokens with a label count, whatever the others hold."""
    loss, expected = exact(REFERENCE[name][0]), REFERENCE[name][1]
    student, teacher = reference.logits()
    student[0, 2:], teacher[1, 3] = math.nan, math.inf
    student.requires_grad_()
    signals = {"student": {"logits": student}, "teacher": {"logits": teacher}}
    batch = {"label": reference.LABEL, "mask": reference.ANSWER}
    for where in ("batch.mask", "batch.label"):
        term = Term(loss, {"student": "student.logits"}, {"teacher": "teacher.logits"}, where=where)
        found = term(signals | {"batch": batch})
        assert found.item() == pytest.approx(expected, abs=1e-8)
        gradient = torch.autograd.grad(found, student)[0]
        assert not gradient[~reference.ANSWER].any()
        assert gradient[reference.ANSWER].any(-1).all()


def test_the_jsd_jumps_at_its_ends_and_the_normalized_form_does_not() -> None:
    small, signals = 1e-3, tokens()
    assert value(JSD(small).double(), signals) < 0.01 * FORWARD
    assert value(JSD(1 - small).double(), signals) < 0.01 * REVERSE
    assert value(JSD(small, normalized=True).double(), signals) == pytest.approx(FORWARD, rel=0.01)
    assert value(JSD(1 - small, normalized=True).double(), signals) == pytest.approx(REVERSE, rel=0.02)


def test_the_jsd_is_symmetric_at_a_half_and_its_mirror_elsewhere() -> None:
    student, teacher = reference.answers()
    for beta in (0.0, 0.1, 0.5):
        there = value(exact(JSD(beta)), {"student": student, "teacher": teacher})
        back = value(exact(JSD(1 - beta)), {"student": teacher, "teacher": student})
        assert there == pytest.approx(back, rel=1e-12)


def test_without_skew_it_is_the_kl_and_with_all_of_it_nothing() -> None:
    signals = tokens()
    assert value(SkewKL(0.0).double(), signals) == pytest.approx(FORWARD, abs=1e-9)
    assert value(SkewReverseKL(0.0).double(), signals) == pytest.approx(REVERSE, abs=1e-9)
    assert value(SkewKL(1.0).double(), signals) == value(SkewReverseKL(1.0).double(), signals) == 0


def test_a_skew_bounds_what_a_vanished_probability_costs() -> None:
    student, teacher = torch.tensor([[0.0, 300.0]]), torch.tensor([[300.0, 0.0]])
    assert value(SoftTarget(1.0), {"student": student, "teacher": teacher}) == pytest.approx(300)
    assert value(SkewKL(0.1), {"student": student, "teacher": teacher}) == pytest.approx(-math.log(0.1), rel=1e-5)


def test_forward_covers_and_reverse_seeks() -> None:
    teacher = torch.tensor([[4.0, 4.0, -4.0]])
    one, broad = torch.tensor([[4.0, -4.0, -4.0]]), torch.tensor([[1.0, 1.0, 1.0]])
    forward = [value(SoftTarget(1.0), {"student": s, "teacher": teacher}) for s in (one, broad)]
    reverse = [value(ReverseKL(), {"student": s, "teacher": teacher}) for s in (one, broad)]
    assert forward[0] > forward[1]
    assert reverse[0] < reverse[1]


def test_the_head_s_shares_are_the_reference_s() -> None:
    student, teacher = reference.answers()
    found = AKL().head_shares(teacher.softmax(-1), student.softmax(-1))
    torch.testing.assert_close(
        found, torch.tensor([0.2234, 0.2138, 0.0262, 0.3897, 0.4757]).double(), atol=5e-5, rtol=0
    )


def test_the_shares_of_the_head_get_no_gradient() -> None:
    student, teacher = reference.answers()
    free = student.clone().requires_grad_()
    found = torch.autograd.grad(AKL().double()(free, teacher), free)[0]
    head = AKL().head_shares(teacher.softmax(-1), student.softmax(-1)).tolist()
    rows = []
    for i, share in enumerate(head):
        row = student[i : i + 1].clone().requires_grad_()
        parts = SoftTarget(1.0).double()(row, teacher[i : i + 1]), ReverseKL().double()(row, teacher[i : i + 1])
        rows.append(torch.autograd.grad((share * parts[0] + (1 - share) * parts[1]) / len(head), row)[0])
    torch.testing.assert_close(found, torch.cat(rows))


def test_of_equal_rows_the_head_s_share_is_a_half() -> None:
    q = torch.tensor([[0.5, 0.3, 0.2]])
    assert AKL().head_shares(q, q).item() == 0.5
    assert AKL(0.0).head_shares(q, torch.tensor([[0.4, 0.4, 0.2]])).item() == pytest.approx(0.5)  # the first, always


def test_total_variation_is_between_0_and_1() -> None:
    far = {"student": torch.tensor([[0.0, 300.0]]), "teacher": torch.tensor([[300.0, 0.0]])}
    assert value(TotalVariation(), far) == 1
    p, q = torch.tensor([[0.2, 0.5, 0.3]]), torch.tensor([[0.6, 0.1, 0.3]])
    assert value(TotalVariation(), {"student": p.log(), "teacher": q.log()}) == pytest.approx(0.4)
