"""Losses of embeddings with learned parts: value, gradients, half precision, state, errors."""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.kdpp import NormDirection
from tutelage.losses.feature.srd import SRD
from tutelage.losses.relation.itrd import ITRD
from tutelage.types import NO_LABEL

Signals = dict[str, Tensor]
WIDTHS = [(5, 7), (4, 4)]


def draw(widths: tuple[int, int] = (5, 7), rows: int = 6, seed: int = 0) -> Signals:
    chance = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(rows, width, generator=chance, dtype=torch.float64) for width in widths)
    return {"student": student, "teacher": teacher, "label": torch.arange(rows) % 3}


def built(make: Callable[[], nn.Module], signals: Signals, seed: int = 1) -> Callable[[Signals], Tensor]:
    """Returns the loss, shaped and prepared, on the arguments that it takes; dropout is off."""
    torch.manual_seed(seed)
    loss = make()
    names = ("student", "teacher", "label") if isinstance(loss, NormDirection) else ("student", "teacher")

    def call(given: Signals) -> Tensor:
        return loss(**{name: given[name] for name in names})

    with torch.no_grad():
        call(signals)
        if isinstance(loss, NormDirection):
            loss.prepare(lambda epoch: [{name: signals[name] for name in ("teacher", "label")}])
    for part in loss.modules():
        if isinstance(part, nn.Dropout):
            part.eval()
    call.loss = loss
    return call


def linear(state: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return np.array([state[f"{name}.weight"] @ row + state[f"{name}.bias"] for row in x])


def itrd(state: dict[str, np.ndarray], student: np.ndarray, teacher: np.ndarray, label: np.ndarray) -> float:
    embedded, n = linear(state, "embed", student), len(student)
    apart = 0.0
    for d in range(teacher.shape[1]):
        a, b = embedded[:, d], teacher[:, d]
        c = sum((a - a.mean()) * (b - b.mean())) / (a.std(ddof=1) * b.std(ddof=1)) / n
        apart += abs(c - 1) ** (2 * 1.5)
    alike = student if student.shape[1] == teacher.shape[1] else embedded

    def cosine(x: np.ndarray, i: int, j: int) -> float:
        return float(x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]))

    shared = 0.0  # the diagonals are 1, so that both traces are n
    for i in range(n):
        for j in range(n):
            ours = cosine(alike, i, j)
            shared += (ours / n) ** 2 - (ours * cosine(teacher, i, j) / n) ** 2
    return 2 * math.log2(apart) + 0.05 * shared


def srd(state: dict[str, np.ndarray], student: np.ndarray, teacher: np.ndarray, label: np.ndarray) -> float:
    def norm(x: np.ndarray) -> np.ndarray:
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-4)

    return math.log((np.abs(norm(linear(state, "project", student)) - norm(teacher)) ** 4).sum())


def norm_direction(state: dict[str, np.ndarray], student: np.ndarray, teacher: np.ndarray, label: np.ndarray) -> float:
    if student.shape[1] != teacher.shape[1]:
        normed = (student - student.mean(0)) / np.sqrt(student.var(0) + 1e-5)
        student = linear(state, "align.2", normed * state["align.0.weight"] + state["align.0.bias"])
    total = 0.0
    for s, t, y in zip(student, teacher, label, strict=True):
        mean = np.mean([row for row, other in zip(teacher, label, strict=True) if other == y], axis=0)
        total += 1 - s @ mean / np.linalg.norm(mean) / max(np.linalg.norm(s), np.linalg.norm(t))
    return total / len(student)


CASES = {
    "ITRD": (lambda: ITRD(mutual=0.05, alpha=1.5), itrd),
    "SRD": (SRD, srd),
    "NormDirection": (lambda: NormDirection(3), norm_direction),
}
every = pytest.mark.parametrize(("make", "formula"), CASES.values(), ids=CASES)


@every
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("seed", range(3))
def test_the_value_is_the_formulas(make, formula, widths, seed) -> None:
    signals = draw(widths, seed=seed)
    call = built(make, signals)
    state = {name: x.double().numpy() for name, x in call.loss.state_dict().items() if isinstance(x, Tensor)}
    expected = formula(state, **{name: x.numpy() for name, x in signals.items()})
    assert call(signals).item() == pytest.approx(expected, rel=1e-6)


@every
@pytest.mark.parametrize("widths", WIDTHS)
def test_gradients_are_the_finite_differences(make, formula, widths) -> None:
    signals = draw(widths)
    call = built(make, signals)
    free = signals["student"].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda student: call(signals | {"student": student}), free)


@every
def test_the_order_of_examples_means_nothing(make, formula) -> None:
    signals = draw()
    call, order = built(make, signals), torch.tensor([4, 0, 5, 1, 3, 2])
    assert call({name: x[order] for name, x in signals.items()}).item() == pytest.approx(call(signals).item())


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(make, formula, dtype) -> None:
    signals = {name: x.to(dtype) if x.is_floating_point() else x for name, x in draw().items()}
    exact = {name: x.double() if x.is_floating_point() else x for name, x in signals.items()}
    call = built(make, exact)
    expected = call(exact).item()
    call.loss.float()
    found = call(signals)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, rel=1e-4)


@every
def test_its_state_makes_another_one_the_same(make, formula) -> None:
    signals = draw()
    call, other = built(make, signals), built(make, draw(seed=9), seed=9)
    other.loss.load_state_dict(copy.deepcopy(call.loss.state_dict()))
    assert torch.equal(call(signals), other(signals))


@every
def test_maps_are_refused(make, formula) -> None:
    with pytest.raises(TutelageError, match=r"takes vectors \[B, D\]"):
        built(make, {"student": torch.zeros(3, 2, 2, 2), "teacher": torch.zeros(3, 2, 2, 2), "label": torch.arange(3)})


def test_a_channel_that_does_not_vary_is_uncorrelated_and_has_no_gradient() -> None:
    signals = draw((4, 4))
    signals["teacher"][:, 1] = 2.0
    call = built(CASES["ITRD"][0], signals)
    signals["student"].requires_grad_()
    loss = call(signals)
    loss.backward()
    assert loss.isfinite()
    assert signals["student"].grad.isfinite().all()


def test_a_long_embedding_in_the_direction_of_its_class_costs_nothing_and_a_short_one_its_length() -> None:
    signals = draw((4, 4), rows=3)  # one example a class: the mean is the teacher's own embedding
    call = built(CASES["NormDirection"][0], signals)
    for factor, expected in ((1.0, 0.0), (3.0, 0.0), (0.25, 0.75)):
        assert call(signals | {"student": factor * signals["teacher"]}).item() == pytest.approx(expected, abs=1e-6)


def test_unlabelled_examples_and_a_second_call_do_not_move_the_means() -> None:
    signals = draw((4, 4))
    call = built(CASES["NormDirection"][0], signals)
    before = call.loss.means.total.clone()
    call.loss.prepare(lambda epoch: [{"teacher": torch.ones(2, 4).double(), "label": torch.tensor([0, 1])}])
    assert torch.equal(call.loss.means.total, before)
    fresh = NormDirection(3)
    fresh(**signals)
    unknown = {"teacher": torch.ones(2, 4).double(), "label": torch.tensor([NO_LABEL] * 2)}
    fresh.prepare(lambda epoch: [unknown, {name: signals[name] for name in ("teacher", "label")}])
    torch.testing.assert_close(fresh.means.total, before)


def test_a_class_without_examples_is_named() -> None:
    signals = draw((4, 4))
    loss = NormDirection(5)
    with pytest.raises(TutelageError, match="no shape before the first call"):
        loss.prepare(lambda epoch: [])
    loss(**signals)
    with pytest.raises(TutelageError, match="no training example of class 3"):
        loss.prepare(lambda epoch: [{name: signals[name] for name in ("teacher", "label")}])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ITRD(alpha=0), "alpha above 0"),
        (lambda: ITRD(correlation=-1), "weights of at least 0"),
        (lambda: SRD(power=math.inf), r"SRD\.power"),
        (lambda: NormDirection(0), r"NormDirection\.num_classes"),
    ],
)
def test_arguments_out_of_range(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(TutelageError, match=said):
        make()
