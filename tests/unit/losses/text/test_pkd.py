import numpy as np
import pytest
import torch
from tests.unit.losses import reference
from tests.unit.losses.properties import Signals, check_gradients, check_half_precision, value
from torch.nn.functional import cross_entropy

from tutelage.errors import TutelageError
from tutelage.losses.logit.soft_target import SoftTarget
from tutelage.losses.text.pkd import PKD


def layers() -> Signals:
    """Three layers of first tokens [2, 6]."""
    student, teacher = reference.logits()
    return {"student": list(student[:, :3].unbind(1)), "teacher": list(teacher[:, :3].unbind(1))}


def test_the_values_of_the_reference() -> None:
    assert value(PKD(), layers()) == pytest.approx(0.3456087647, abs=1e-9)
    assert value(PKD(normalize=False), layers()) == pytest.approx(6.919128, abs=1e-6)  # known to six places


def test_the_values_of_the_reference_on_logits() -> None:
    """Theirs divides the divergence by the number of classes."""
    (student, teacher), label = (x[:, 0] for x in reference.logits()), torch.tensor([1, 4])
    soft = value(SoftTarget(10.0).double(), {"student": student, "teacher": teacher}) / 6
    hard = cross_entropy(student, label).item()
    assert (soft, hard) == (pytest.approx(0.68451596, abs=5e-9), pytest.approx(1.15578162, abs=5e-9))
    assert 0.7 * soft + 0.3 * hard == pytest.approx(0.82589566, abs=5e-9)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_value_is_the_formulas(normalize: bool) -> None:
    signals, found = layers(), []
    for s, t in zip(*signals.values(), strict=True):
        for x, y in zip(s.numpy(), t.numpy(), strict=True):
            lengths = (np.linalg.norm(x), np.linalg.norm(y)) if normalize else (1, 1)
            found += list((x / lengths[0] - y / lengths[1]) ** 2)
    assert value(PKD(normalize), signals) == pytest.approx(np.mean(found), rel=1e-12)


def test_of_a_sequence_the_first_token_is_read() -> None:
    g = torch.Generator().manual_seed(0)
    rest = [torch.randn(2, 4, 6, generator=g, dtype=torch.float64) for _ in range(6)]
    signals = {
        name: [torch.cat([one[:, None], r], 1) for one, r in zip(stages, part, strict=True)]
        for (name, stages), part in zip(layers().items(), (rest[:3], rest[3:]), strict=True)
    }
    assert value(PKD(), signals) == value(PKD(), layers())
    student = [one.requires_grad_() for one in signals["student"]]
    for gradient in torch.autograd.grad(PKD()(student, signals["teacher"]), student):
        assert gradient[:, 0].any()
        assert not gradient[:, 1:].any()


def test_gradients_are_the_finite_differences() -> None:
    for normalize in (True, False):
        check_gradients(PKD(normalize), layers(), ("student", "teacher"))


def test_the_length_of_a_state_means_nothing_unless_it_is_said_to() -> None:
    same = {"student": layers()["student"], "teacher": [3 * one for one in layers()["student"]]}
    assert value(PKD(), same) == pytest.approx(0, abs=1e-30)
    assert value(PKD(normalize=False), same) > 1


def test_a_tensor_alone_is_one_layer() -> None:
    first = {name: stages[0] for name, stages in layers().items()}
    assert value(PKD(), first) == value(PKD(), {name: stages[:1] for name, stages in layers().items()})


def test_half_precision() -> None:
    check_half_precision(PKD(), layers(), "student")


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TutelageError, match="PKD needs as many layers of both; found 3 and 2"):
        PKD()(layers()["student"], layers()["teacher"][:2])
    with pytest.raises(TutelageError, match=r"PKD: student \[2, 6\] and teacher \[2, 5\]"):
        PKD()(torch.ones(2, 6), torch.ones(2, 5))
    with pytest.raises(TutelageError, match=r"states \[B, L, d\] or \[B, d\]; found \[\[6\]\]"):
        PKD()(torch.ones(6), torch.ones(6))
