import math

import numpy as np
import pytest
import torch
from tests.unit.losses.properties import check_gradients, check_half_precision, check_padding, value
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.logit.bernoulli_kl import BernoulliKL
from tutelage.losses.logit.soft_target import SoftTarget
from tutelage.objective import Term


def draw(rows: int = 5, answers: int = 4, scale: float = 3.0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    return {n: scale * torch.randn(rows, answers, generator=g, dtype=torch.float64) for n in ("student", "teacher")}


def labels() -> Tensor:
    known = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0], [1, 1, 0, 1]], dtype=torch.bool)
    return torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64).expand(5, 4).where(known, math.nan)


def oracle(student: Tensor, teacher: Tensor, temperature: float, label: Tensor | None = None) -> float:
    found = []
    for i, (s, t) in enumerate(zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True)):
        if label is not None and math.isnan(label.flatten()[i]):
            continue
        q, p = (1 / (1 + np.exp(-z / temperature)) for z in (t, s))
        found.append(q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p)))
    return temperature**2 * float(np.mean(found))


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("missing", [False, True])
def test_the_value_is_the_formulas(temperature: float, missing: bool) -> None:
    label = labels() if missing else None
    loss, signals = BernoulliKL(temperature).double(), draw()
    assert value(loss, signals | {"label": label}) == pytest.approx(
        oracle(**signals, temperature=temperature, label=label)
    )


def test_it_is_the_soft_target_of_yes_and_no() -> None:
    signals = draw()
    both = {name: torch.stack([z.flatten(), torch.zeros(20)], 1).double() for name, z in signals.items()}
    assert value(BernoulliKL(4.0).double(), signals) == pytest.approx(value(SoftTarget(4.0).double(), both), rel=1e-12)


def test_gradients_are_the_finite_differences() -> None:
    check_gradients(BernoulliKL(2.0).double(), draw(), ("student", "teacher"))
    check_gradients(BernoulliKL(2.0).double(), draw() | {"label": labels()}, ("student", "teacher"))


def test_agreement_is_the_minimum() -> None:
    student = draw()["student"].requires_grad_()
    loss = BernoulliKL().double()(student, student.detach())
    assert loss.item() == pytest.approx(0, abs=1e-15)
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-15


def test_as_t_grows_it_is_an_eighth_of_the_squared_distance() -> None:
    signals = draw()
    expected = (signals["student"] - signals["teacher"]).square().mean() / 8
    assert value(BernoulliKL(1e4).double(), signals) == pytest.approx(expected.item(), rel=1e-3)


def test_half_precision() -> None:
    for temperature in (1.0, 20.0):
        check_half_precision(BernoulliKL(temperature), draw(), "student")


@pytest.mark.parametrize("gap", [3e-2, 3e-3])
def test_between_near_equals_float32_keeps_its_digits(gap: float) -> None:
    teacher = draw(64, 50)["teacher"].float()
    student = teacher + gap * torch.randn(64, 50, generator=torch.Generator().manual_seed(1))
    expected = value(BernoulliKL().double(), {"student": student.double(), "teacher": teacher.double()})
    assert value(BernoulliKL(), {"student": student, "teacher": teacher}) == pytest.approx(expected, rel=1e-3)


def test_sure_answers_are_finite() -> None:
    student = torch.tensor([1e4, -1e4, 300.0]).requires_grad_()
    loss = BernoulliKL()(student, torch.tensor([-1e4, 1e4, math.inf]))
    loss.backward()
    assert loss.item() == pytest.approx(2e4 / 3, rel=1e-6)
    torch.testing.assert_close(student.grad, torch.tensor([1 / 3, -1 / 3, 0.0]))


def test_an_answer_without_a_label_counts_for_nothing() -> None:
    signals = draw() | {"label": labels()}
    known = ~signals["label"].isnan()
    loss = BernoulliKL(2.0).double()
    kept = {name: z[known] for name, z in draw().items()}
    mask = {"student": "known", "teacher": "known"}
    check_padding(_Labelled(loss, signals["label"]), draw() | {"known": known}, mask)
    assert value(loss, signals) == pytest.approx(value(loss, kept), rel=1e-12)
    none = signals | {"label": torch.full((5, 4), math.nan)}
    assert value(loss, none) == 0


class _Labelled(torch.nn.Module):
    """The loss with fixed labels, whose known elements are a mask to the checks."""

    def __init__(self, loss: torch.nn.Module, label: Tensor):
        super().__init__()
        self.loss, self.label = loss, label

    def forward(self, student: Tensor, teacher: Tensor, known: Tensor) -> Tensor:
        return self.loss(student, teacher, self.label)


def test_in_a_term_the_mean_is_over_the_known_answers() -> None:
    signals = {"student": {"logits": draw()["student"]}, "teacher": {"logits": draw()["teacher"]}}
    term = Term(
        BernoulliKL(2.0).double(), {"student": "student.logits", "label": "batch.label"}, {"teacher": "teacher.logits"}
    )
    term.bind(torch.arange(5), labels())
    found = term(signals | {"batch": {"label": labels()}})
    assert found.item() == pytest.approx(oracle(**draw(), temperature=2.0, label=labels()))


def test_shapes_that_do_not_fit_are_refused() -> None:
    loss, signals = BernoulliKL(), draw()
    with pytest.raises(TutelageError, match=r"BernoulliKL: student \[5, 4\] and teacher \[5, 1\]"):
        loss(signals["student"], signals["teacher"][:, :1])
    with pytest.raises(TutelageError, match=r"floats \[5, 4\] as labels.*found torch.int64 \[5\]"):
        loss(**signals, label=torch.arange(5))
    with pytest.raises(TutelageError, match=r"BernoulliKL.temperature"):
        BernoulliKL(0.0)
